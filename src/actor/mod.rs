//! The third door: a command run as an Actor, with a store, a mount and an API of its own. It never reads the command line
//! or prints anything.

mod api;
mod asked;
mod child;
mod end;
mod env;
mod guard;
mod input;
mod run;
mod seen;
mod stage;

pub use child::{Launch, Terminal};
pub use end::{Ended, Output, asked_by};
pub use env::CONTROL as CONTROL_VARIABLE;
pub use guard::{AnyPath, Guard, Left};
pub use input::Input;
pub use run::{Plan, run};
pub use stage::{OnFolder, OnServer, Stage};
