//! Requests and answers over HTTP: who is asked, with what, how long, and how much is read of what comes back. The token goes
//! to the server's own address only.

use super::base::{Base, Token};
use super::failure::{Asked, Told, rest_asked};
use super::upload::Load;
use crate::backend::pace::{Class, Pace, Rates};
use crate::backend::streamed::{Moved, on_its_way};
use crate::backend::trouble::Trouble;
use crate::error::{Error, Kind, Result};
use crate::record::encoding::Encoding;
use crate::record::key::StoreId;
use reqwest::header::{
    self, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE,
    HeaderMap, HeaderValue, LOCATION,
};
use reqwest::{Method, Response, StatusCode, Url};
use serde::de::DeserializeOwned;
use std::fmt;
use std::io::Read;
use std::sync::atomic::Ordering;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// How often an answer may lead elsewhere.
const REDIRECTS: usize = 5;
/// The most that is read of an answer of JSON, before and after decoding. A page of 1000 keys has about 1 MB.
const MAX_JSON: usize = 32 << 20;
/// The most that is read of an answer that says why not.
const MAX_REFUSAL: usize = 64 << 10;
/// How long an answer of JSON may take to arrive, however steadily it comes.
const JSON_TIME: Duration = Duration::from_secs(120);
/// How long the reason of a failure may take to arrive.
const REFUSAL_TIME: Duration = Duration::from_secs(5);
/// How long a connection that nobody uses is kept: shorter than `serve` keeps it, so that it is not closed under a request.
const IDLE: Duration = Duration::from_secs(20);
/// How long all wait after a 429 that names no time.
const REST: Duration = Duration::from_millis(200);
/// Encodings that are understood.
pub(super) const ENCODINGS: HeaderValue = HeaderValue::from_static("gzip, br, deflate, zstd");
/// No encoding.
pub(super) const PLAIN: HeaderValue = HeaderValue::from_static("identity");

/// A request.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub asked: Asked<'a>,
    pub method: Method,
    /// Path and query, beginning with `/v2`.
    pub path: String,
    pub store: Option<&'a StoreId>,
    pub class: Class,
    pub headers: HeaderMap,
    pub load: Load,
    /// Who asks, when it is not who always does.
    pub token: Option<Token>,
}

impl<'a> Call<'a> {
    /// A request without a body.
    pub(super) fn new(op: &'static str, subject: &'a str, method: Method, path: String) -> Self {
        let writes = method != Method::GET && method != Method::HEAD;
        Self {
            asked: Asked {
                op,
                subject,
                writes,
            },
            method,
            path,
            store: None,
            class: Class::Other,
            headers: HeaderMap::new(),
            load: Load::None,
            token: None,
        }
    }

    /// The same to a store, which counts as `class`.
    pub(super) fn to(mut self, store: &'a StoreId, class: Class) -> Self {
        self.store = Some(store);
        self.class = class;
        self
    }

    pub(super) fn header(mut self, name: header::HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    pub(super) fn json(mut self, value: &serde_json::Value) -> Self {
        self.load = Load::Json(value.to_string().into_bytes());
        let content_type = HeaderValue::from_static("application/json; charset=utf-8");
        self.header(CONTENT_TYPE, content_type)
    }
}

/// Connections to one server.
pub(super) struct Client {
    http: reqwest::Client,
    base: Base,
    token: RwLock<Option<Token>>,
    pace: Pace,
    patience: Duration,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}

impl Client {
    pub(super) fn new(
        base: Base,
        token: Option<Token>,
        rates: Option<Rates>,
        (connect, patience): (Duration, Duration),
    ) -> Result<Self> {
        // Somebody else in the process may have chosen one already; any will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let build = |secure: bool| {
            let mut builder = reqwest::Client::builder()
                .user_agent(concat!("storefs/", env!("CARGO_PKG_VERSION")))
                .redirect(reqwest::redirect::Policy::none())
                .referer(false)
                .tcp_nodelay(true)
                .tcp_keepalive(IDLE)
                .connect_timeout(connect)
                .pool_idle_timeout(IDLE)
                .http2_adaptive_window(true)
                .http2_keep_alive_interval(IDLE / 2)
                .http2_keep_alive_timeout(patience);
            // A proxy cannot reach this machine's own address.
            if base.is_loopback() {
                builder = builder.no_proxy();
            }
            if !secure {
                builder = builder.tls_certs_only([]);
            }
            builder.build()
        };
        let built = build(true);
        // A machine without certificates can still talk to itself.
        let built = match built {
            Err(_) if !base.is_secure() => build(false),
            built => built,
        };
        let http = built.map_err(|why| {
            let why = format!(
                "{} (are the certificates of the system installed? On Debian: apt install ca-certificates)",
                super::failure::reasons(&why)
            );
            Error::because("prepare connections to", base.as_str(), Kind::Io, why)
        })?;
        Ok(Self {
            http,
            pace: Pace::new(rates),
            base,
            token: RwLock::new(token),
            patience,
        })
    }

    pub(super) fn base(&self) -> &Base {
        &self.base
    }

    pub(super) fn token(&self) -> Option<Token> {
        let token = self.token.read().unwrap_or_else(PoisonError::into_inner);
        token.clone()
    }

    pub(super) fn set_token(&self, token: Token) {
        *self.token.write().unwrap_or_else(PoisonError::into_inner) = Some(token);
    }

    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// The answer, whatever it is. What leads elsewhere is followed for what only reads.
    pub(super) async fn answer(&self, call: &Call<'_>) -> Result<Response> {
        let rest = self.pace.wait(call.store, call.class);
        if rest > self.patience {
            // Nobody waits for that in silence.
            let why = format!(
                "the server asked to be left alone for {} more seconds",
                rest.as_secs()
            );
            let trouble = Trouble::passing(why).after(Some(rest));
            return Err(trouble.error(call.asked.op, call.asked.subject, Kind::TimedOut));
        }
        self.pace.turn(call.store, call.class).await;
        let mut url = self.base.join(&call.path)?;
        for _ in 0..=REDIRECTS {
            let response = self.once(call, url.clone()).await?;
            let status = response.status();
            if status == StatusCode::TOO_MANY_REQUESTS {
                let rest = rest_asked(response.headers()).unwrap_or(REST);
                self.pace.rest(call.store, call.class, rest);
            }
            let Some(to) = response
                .headers()
                .get(LOCATION)
                .filter(|_| status.is_redirection())
            else {
                return Ok(response);
            };
            if call.asked.writes {
                return Err(call.asked.wrong(format!(
                    "the server answered {status} and would have us write elsewhere (is this the right address?)"
                )));
            }
            let to = String::from_utf8_lossy(to.as_bytes());
            url = self.base.redirect(&url, &to).map_err(|why| {
                call.asked
                    .wrong(format!("the server is not to be followed: {why}"))
            })?;
        }
        Err(call
            .asked
            .wrong(format!("the server redirects more than {REDIRECTS} times")))
    }

    /// The answer, when it is one of success.
    pub(super) async fn success(&self, call: &Call<'_>) -> Result<Response> {
        let response = self.answer(call).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(self.refusal(call, response).await)
    }

    /// What an answer that is no success means.
    pub(super) async fn refusal(&self, call: &Call<'_>, response: Response) -> Error {
        let (status, headers) = (response.status(), response.headers().clone());
        let read = timeout(REFUSAL_TIME, self.read(&call.asked, response, MAX_REFUSAL)).await;
        let told = match read {
            Ok(Ok(body)) => Told::of(&body),
            Ok(Err(_)) | Err(_) => Told::default(),
        };
        if status == StatusCode::NOT_FOUND && told.is_nothing() && call.method != Method::HEAD {
            // A proxy without its server says so too.
            let why = format!(
                "the server answered {status}, and not as the API does (is {} an Apify API?)",
                self.base
            );
            return Trouble::lasting(why).error(call.asked.op, call.asked.subject, Kind::Io);
        }
        let token = call.token.clone().or_else(|| self.token());
        call.asked.refused(status, &headers, &told, token.as_ref())
    }

    /// The JSON of an answer of success, with its status.
    pub(super) async fn json<T: DeserializeOwned>(
        &self,
        mut call: Call<'_>,
    ) -> Result<(StatusCode, T)> {
        call.headers.insert(ACCEPT_ENCODING, ENCODINGS);
        let response = self.success(&call).await?;
        self.json_of(&call, response).await
    }

    /// The JSON of this answer, with its status.
    pub(super) async fn json_of<T: DeserializeOwned>(
        &self,
        call: &Call<'_>,
        response: Response,
    ) -> Result<(StatusCode, T)> {
        let status = response.status();
        let read = timeout(JSON_TIME, self.read(&call.asked, response, MAX_JSON)).await;
        let body = read.map_err(|_| call.asked.stalled(JSON_TIME))??;
        let value = serde_json::from_slice(&body).map_err(|why| {
            call.asked.wrong(format!(
                "the answer is not what the API says: {why} (is {} an Apify API?)",
                self.base
            ))
        })?;
        Ok((status, value))
    }

    /// The whole body of an answer, of which there is not more than `limit`.
    pub(super) async fn read(
        &self,
        asked: &Asked<'_>,
        mut response: Response,
        limit: usize,
    ) -> Result<Vec<u8>> {
        let endless = || {
            asked.wrong(format!(
                "the answer is longer than {limit} bytes (is {} an Apify API?)",
                self.base
            ))
        };
        let encoding = encoding_of(response.headers()).map_err(|why| asked.wrong(why))?;
        let mut body = Vec::new();
        loop {
            let chunk = timeout(self.patience, response.chunk()).await;
            let chunk = chunk.map_err(|_| asked.stalled(self.patience))?;
            let Some(chunk) = chunk.map_err(|why| asked.broken(&why))? else {
                break;
            };
            if body.len() + chunk.len() > limit {
                return Err(endless());
            }
            body.extend_from_slice(&chunk);
        }
        let Some(encoding) = encoding else {
            return Ok(body);
        };
        let mut plain = Vec::new();
        let most = limit as u64 + 1;
        let decoded = encoding
            .decode(&body[..])
            .take(most)
            .read_to_end(&mut plain);
        decoded
            .map_err(|why| asked.wrong(format!("the answer is no {}: {why}", encoding.name())))?;
        if plain.len() > limit {
            return Err(endless());
        }
        Ok(plain)
    }

    async fn once(&self, call: &Call<'_>, url: Url) -> Result<Response> {
        let moved = Moved::default();
        let at_home = self.base.is_home_of(&url);
        let mut request = self
            .http
            .request(call.method.clone(), url)
            .headers(call.headers.clone());
        let token = call.token.clone().or_else(|| self.token());
        if let Some(header) = token.filter(|_| at_home).and_then(|token| token.header()) {
            request = request.header(AUTHORIZATION, header);
        }
        if call.asked.writes {
            let body = call.load.body(&moved).await.map_err(|why| {
                let why = format!("the body cannot be read here: {why}");
                Trouble::lasting(why).error(call.asked.op, call.asked.subject, Kind::Io)
            })?;
            if call.load.is_empty() && call.method != Method::DELETE {
                // Some servers wait for a body where no length is told.
                request = request.header(CONTENT_LENGTH, HeaderValue::from_static("0"));
            }
            request = request.body(body);
        }
        tokio::select! {
            biased;
            response = request.send() => response.map_err(|why| call.asked.broken(&why)),
            () = until_still(&moved, self.patience, call.load.length()) => {
                Err(call.asked.stalled(self.patience))
            }
        }
    }
}

/// Returns when nothing has moved for so long. What was handed on of a long body may still be on its way.
async fn until_still(moved: &Moved, patience: Duration, length: u64) {
    loop {
        let before = moved.load(Ordering::Relaxed);
        sleep(patience).await;
        if moved.load(Ordering::Relaxed) == before {
            break;
        }
    }
    if moved.load(Ordering::Relaxed) >= length {
        sleep(on_its_way(length)).await;
    }
}

/// How a body is encoded. The reason when that is not understood.
pub(super) fn encoding_of(headers: &HeaderMap) -> std::result::Result<Option<Encoding>, String> {
    let mut found = None;
    for value in headers.get_all(CONTENT_ENCODING) {
        let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
        for name in text.split(',').map(str::trim) {
            if name.is_empty() || name.eq_ignore_ascii_case("identity") {
                continue;
            }
            match Encoding::named(name).filter(|_| found.is_none()) {
                Some(encoding) => found = Some(encoding),
                None => {
                    let name: String = text.chars().take(40).collect();
                    return Err(format!(
                        "the answer is encoded as {name:?}, which was not asked for"
                    ));
                }
            }
        }
    }
    Ok(found)
}
