//! Who asks, and what they may do with a store. It never looks at a record.

use super::asked::Asked;
use super::problem::{Answer, Problem};
use super::tokens::{Bearer, Roster, TokenFile, User};
use crate::backend::StoreInfo;
use crate::error::Result;
use crate::record::store::Access;
use crate::record::{Key, signature};
use axum::http::{HeaderMap, header};
use std::borrow::Cow;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use subtle::ConstantTimeEq;

/// How often the file of tokens is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// Where users and tokens come from.
#[derive(Clone, Debug)]
pub enum Users {
    /// A file of tokens, whose changes apply while the server runs.
    File(TokenFile),
    /// Any token is that of the one user of this name.
    AnyToken(String),
    /// One user with one token, which nothing keeps.
    One {
        /// The user's name.
        name: String,
        /// The token.
        token: Secret,
    },
}

impl Users {
    /// The id of the one user, where there is but one.
    pub fn home(&self) -> Option<String> {
        match self {
            Self::File(_) => None,
            Self::AnyToken(name) | Self::One { name, .. } => {
                Some(Roster::of_one(name).home()?.id.clone())
            }
        }
    }
}

/// A text that no log shows.
#[derive(Clone)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("...")
    }
}

/// Who is known, kept current.
#[derive(Debug)]
pub(super) struct Known {
    users: Users,
    roster: RwLock<Arc<Roster>>,
}

/// Somebody who asks, or nobody in particular.
pub(super) type Caller = Option<Bearer>;

impl Known {
    /// Reads who is known.
    pub(super) fn open(users: Users) -> Result<Self> {
        let roster = match &users {
            Users::File(file) => file.read()?,
            Users::AnyToken(name) | Users::One { name, .. } => Roster::of_one(name),
        };
        Ok(Self {
            users,
            roster: RwLock::new(Arc::new(roster)),
        })
    }

    /// Everybody.
    pub(super) fn roster(&self) -> Arc<Roster> {
        self.roster
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Follows the file for ever. What cannot be read leaves things as they are.
    pub(super) async fn follow(self: Arc<Self>) {
        let Users::File(file) = self.users.clone() else {
            return;
        };
        let mut seen = None;
        loop {
            let stamp = file.stamp();
            if seen != Some(stamp) {
                match file.read() {
                    Ok(roster) => {
                        *self.roster.write().unwrap_or_else(PoisonError::into_inner) =
                            Arc::new(roster);
                    }
                    Err(why) => tracing::error!("{why}; the tokens known before stay valid"),
                }
                seen = Some(stamp);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Who asks. A token that is not valid is refused, whatever is asked.
    pub(super) fn caller(&self, asked: &Asked) -> Answer<Caller> {
        let headers = asked.headers();
        let token = match headers.get(header::AUTHORIZATION) {
            Some(value) => {
                let text = value.to_str().map_err(|_| Problem::bad_token())?;
                let (scheme, token) = text.split_once(' ').ok_or_else(Problem::bad_token)?;
                if !scheme.eq_ignore_ascii_case("bearer") {
                    return Err(Problem::bad_token());
                }
                Cow::Borrowed(token.trim())
            }
            None => match asked.query().get("token")? {
                Some(token) => token,
                None => return Ok(None),
            },
        };
        if token.is_empty() {
            return Ok(None);
        }
        let roster = self.roster();
        let is_home = match &self.users {
            Users::File(_) => false,
            Users::AnyToken(_) => {
                refuse_web_pages(headers)?;
                true
            }
            Users::One { token: one, .. } => {
                if !bool::from(one.0.as_bytes().ct_eq(token.as_bytes())) {
                    return Err(Problem::bad_token());
                }
                true
            }
        };
        if is_home {
            return Ok(roster.home().map(|user| Bearer {
                user: user.clone(),
                read_only: false,
            }));
        }
        let bearer = roster.bearer(&token, SystemTime::now());
        bearer.map(Some).ok_or_else(Problem::bad_token)
    }

    /// The user's id as stores carry it. What the first user owns carries none, like what an SDK makes in the folder.
    pub(super) fn owner_of(&self, user: &User) -> Option<String> {
        let is_home = self.roster().home().is_some_and(|home| home.id == user.id);
        (!is_home).then(|| user.id.clone())
    }

    /// The user to whom a store belongs.
    pub(super) fn user_of(&self, store: &StoreInfo) -> Option<Arc<User>> {
        let roster = self.roster();
        match &store.owner {
            None => roster.home().cloned(),
            Some(owner) => roster.user(owner).cloned(),
        }
    }

    /// Whether the store is the caller's own.
    pub(super) fn owns(&self, caller: &Caller, store: &StoreInfo) -> bool {
        let Some(bearer) = caller else { return false };
        match &store.owner {
            None => self.owner_of(&bearer.user).is_none(),
            Some(owner) => *owner == bearer.user.id,
        }
    }

    /// Whether the caller may change the store.
    pub(super) fn may_write(&self, caller: &Caller, store: &StoreInfo) -> Answer<()> {
        let bearer = caller.as_ref().ok_or_else(Problem::no_token)?;
        if !self.owns(caller, store) {
            return Err(Problem::forbidden());
        }
        may_change(bearer)
    }

    /// Whether the caller may read the store, or the part of it that a signature opens.
    pub(super) fn may_read(
        &self,
        caller: &Caller,
        store: &StoreInfo,
        by_name: bool,
        opened_by: Option<(&Signed<'_>, &str)>,
    ) -> Answer<()> {
        let open = match store.access {
            Access::AnyoneWithId => !by_name,
            Access::AnyoneWithName => true,
            Access::FollowUser | Access::Restricted => false,
        };
        if open || self.owns(caller, store) {
            return Ok(());
        }
        if let (Some((signed, signature)), Some(secret)) = (opened_by, &store.secret)
            && signed.is_opened(secret, store, signature)
        {
            return Ok(());
        }
        match (caller, opened_by) {
            (None, None) => Err(Problem::no_token()),
            _ => Err(Problem::forbidden()),
        }
    }
}

/// What a signature is for.
pub(super) enum Signed<'r> {
    /// One record.
    Record(&'r Key),
    /// The listing of a store.
    Listing,
}

impl Signed<'_> {
    fn is_opened(&self, secret: &str, store: &StoreInfo, signature: &str) -> bool {
        match self {
            Self::Record(key) => signature::opens_key(secret, key.as_str(), signature),
            Self::Listing => {
                let now = SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .unwrap_or_default();
                let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
                signature::opens_store(secret, store.id.as_str(), signature, now)
            }
        }
    }
}

/// Whether this token may change anything.
pub(super) fn may_change(bearer: &Bearer) -> Answer<()> {
    if bearer.read_only {
        return Err(Problem::read_only_token());
    }
    Ok(())
}

/// Where any token will do, pages of other sites that are open in a browser of this machine stay outside, also when
/// their name leads to this address.
fn refuse_web_pages(headers: &HeaderMap) -> Answer<()> {
    let text = |name| {
        headers
            .get(name)
            .and_then(|value: &axum::http::HeaderValue| value.to_str().ok())
    };
    let host = text(header::HOST).unwrap_or("");
    let name = host.rsplit_once(':').map_or(host, |(name, port)| {
        let is_port = port.bytes().all(|byte| byte.is_ascii_digit());
        if is_port { name } else { host }
    });
    let local = name.eq_ignore_ascii_case("localhost")
        || name
            .trim_matches(['[', ']'])
            .parse()
            .is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    let from_page = headers.contains_key(header::ORIGIN)
        || headers
            .get("sec-fetch-site")
            .is_some_and(|site| site != "none" && site != "same-origin");
    if local && !from_page {
        return Ok(());
    }
    Err(Problem::new(
        axum::http::StatusCode::FORBIDDEN,
        "insufficient-permissions",
        "A server that accepts any token answers only programs on its own machine.",
    ))
}
