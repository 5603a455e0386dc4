//! Keys as file names, both ways.
