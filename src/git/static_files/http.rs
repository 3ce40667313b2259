//! Files of a static folder over HTTP, one after the other on one connection.
//!
//! A connection has what those of git have. No redirect is followed: a folder has one place, and
//! credentials and a client certificate are for that host alone.

use std::time::{Duration, SystemTime};

use curl::easy::{Auth, Easy2, Handler, List, WriteError};
use gix::url::Scheme;

use super::error::StaticError;
use super::tip_record::Validators;
use crate::git::credentials::SecretLocation;
use crate::git::explain::explain;
use crate::git::http::connection::{self, MAX_HEADER_BYTES};
use crate::git::http::retry_after;
use crate::git::login::Login;
use crate::git::remote_url::RemoteUrl;
use crate::redact::without_users;

/// The most characters of what a server says that an error shows.
const MAX_SHOWN: usize = 300;

/// The server's answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HttpAnswer {
    /// The file.
    File(Vec<u8>, Validators),
    /// It is as the condition says (HTTP status 304).
    NotModified,
    /// There is no such file.
    Missing,
}

/// The client of one folder.
pub(super) struct HttpClient<'a> {
    easy: Easy2<Answer>,
    url: &'a RemoteUrl,
    login: Option<Login>,
}

/// One answer as it comes in.
#[derive(Debug, Default)]
struct Answer {
    limit: u64,
    body: Vec<u8>,
    is_too_long: bool,
    header_bytes: usize,
    validators: Validators,
    location: Option<String>,
    retry_after: Option<Duration>,
}

impl Handler for Answer {
    fn write(&mut self, data: &[u8]) -> Result<usize, WriteError> {
        if (self.body.len() + data.len()) as u64 > self.limit {
            self.is_too_long = true;
            return Ok(0);
        }
        self.body.extend_from_slice(data);
        Ok(data.len())
    }

    fn header(&mut self, line: &[u8]) -> bool {
        self.header_bytes += line.len();
        if self.header_bytes > MAX_HEADER_BYTES {
            self.is_too_long = true;
            return false;
        }
        let Some((name, value)) = std::str::from_utf8(line).ok().and_then(|line| line.split_once(':')) else {
            return true;
        };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            // What is announced too long is not even begun.
            "content-length" => self.is_too_long |= value.parse().is_ok_and(|length: u64| length > self.limit),
            "etag" => self.validators.etag = Validators::value(value),
            "last-modified" => self.validators.last_modified = Validators::value(value),
            "retry-after" => self.retry_after = retry_after::parse(value, SystemTime::now()),
            "location" => self.location = Some(value.chars().take(MAX_SHOWN).collect()),
            _ => {}
        }
        !self.is_too_long
    }
}

impl<'a> HttpClient<'a> {
    /// A client that is not connected yet.
    pub(super) fn new(url: &'a RemoteUrl) -> Result<Self, StaticError> {
        let mut client = Self { easy: Easy2::new(Answer::default()), url, login: None };
        let credentials = url.access().credentials.as_ref();
        // What git has is asked for where the server wants it: a credential helper may take its time.
        if credentials.is_some_and(|credentials| credentials.secret != SecretLocation::Git) {
            client.login = client.find_login()?;
        }
        let certificate = url.certificate_files().map_err(StaticError::Credentials)?;
        connection::configure(&mut client.easy, url.access(), certificate.as_ref())
            // The digests in a tip compress to half, and what is decoded counts against the limit.
            .and_then(|()| client.easy.accept_encoding("gzip"))
            .map_err(|error| client.failed(&url.to_string(), &error))?;
        Ok(client)
    }

    /// Credentials are sent over HTTPS alone.
    fn find_login(&self) -> Result<Option<Login>, StaticError> {
        let credentials = self.url.access().credentials.as_ref();
        let Some(credentials) = credentials.filter(|_| self.url.parsed().scheme == Scheme::Https) else {
            return Ok(None);
        };
        credentials.login(self.url.parsed()).map_err(StaticError::Credentials)
    }

    /// Gets the file at `path` below the folder, of at most `limit` bytes, unless it is as `known` says.
    pub(super) fn get(
        &mut self,
        path: &str,
        limit: u64,
        known: Option<&Validators>,
    ) -> Result<HttpAnswer, StaticError> {
        let file = format!("{}/{path}", self.url.to_string().trim_end_matches('/'));
        let mut status = self.ask(&file, limit, known)?;
        if status == 401 && self.login.is_none() {
            self.login = self.find_login()?;
            if self.login.is_some() {
                status = self.ask(&file, limit, known)?;
            }
        }
        let answer = self.easy.get_mut();
        match status {
            200 => Ok(HttpAnswer::File(std::mem::take(&mut answer.body), std::mem::take(&mut answer.validators))),
            304 if known.is_some() => Ok(HttpAnswer::NotModified),
            404 | 410 => Ok(HttpAnswer::Missing),
            // Some servers answer a client without a certificate with 400.
            400 | 401 | 403 => Err(StaticError::Refused { file, status }),
            300..=399 => {
                let to = answer.location.take().unwrap_or_else(|| format!("nowhere (HTTP status {status})"));
                Err(StaticError::Redirect { file, to: without_users(&to).escape_debug().to_string() })
            }
            status => {
                let retry_after = answer.retry_after.filter(|_| retry_after::is_for(status));
                Err(StaticError::Status { file, status, retry_after })
            }
        }
    }

    /// Sends one request, and returns the status of the answer.
    fn ask(&mut self, file: &str, limit: u64, known: Option<&Validators>) -> Result<u32, StaticError> {
        *self.easy.get_mut() = Answer { limit, ..Answer::default() };
        let sent = self.send(file, known);
        if self.easy.get_ref().is_too_long {
            return Err(StaticError::TooLong { file: file.to_owned(), limit });
        }
        sent.map_err(|error| self.failed(file, &error))
    }

    fn send(&mut self, file: &str, known: Option<&Validators>) -> Result<u32, curl::Error> {
        self.easy.url(file)?;
        let mut headers = List::new();
        if let Some(condition) = known.and_then(Validators::condition) {
            headers.append(&condition)?;
        }
        self.easy.http_headers(headers)?;
        if let Some(Login { user, password }) = &self.login {
            // It is sent at once, since there is one way to log in.
            self.easy.http_auth(Auth::new().basic(true))?;
            self.easy.username(user)?;
            self.easy.password(password)?;
        }
        self.easy.perform()?;
        self.easy.response_code()
    }

    fn failed(&self, file: &str, error: &curl::Error) -> StaticError {
        let access = self.url.access();
        let why = connection::describe(error, access);
        let advice = explain(&why, access).map(|known| format!("; {}", known.advice)).unwrap_or_default();
        StaticError::Connection { file: file.to_owned(), why: format!("{why}{advice}") }
    }
}
