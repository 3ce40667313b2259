//! git's requests over HTTP, for gix: one connection after the other, each request in a thread of its own, so that a pack is read while
//! it arrives.

use std::io::{self, BufRead, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use curl::easy::{Easy2, Handler, List, WriteError};
use gix::protocol::transport::client::AuthenticationRequired;
use gix::protocol::transport::client::blocking_io::http::{GetResponse, Http, PostBodyDataKind, PostResponse};

use super::connection::{self, MAX_HEADER_BYTES};
use super::redirect::{self, Place, Redirect};
use super::retry_after;
use crate::git::client_certificate::CertificateFiles;
use crate::git::remote_url::RemoteUrl;

/// How many redirects are followed, one after the other.
const MAX_REDIRECTS: usize = 5;
/// The most bytes of the body of a refusal that are read, so that the connection can be used again.
const MAX_REFUSAL_BYTES: usize = 64 << 10;
/// The parts of an answer that wait for their reader.
const WAITING_PARTS: usize = 4;
/// The stack of a request's thread, which libcurl and its TLS need.
const STACK: usize = 512 << 10;

/// The end of a request of git's, as a packet line.
const FLUSH: &[u8] = b"0000";
/// The argument that asks for no progress, as a packet line.
const NO_PROGRESS: &[u8] = b"0010no-progress\n";

/// The HTTP client of one fetch. Its clones are the same client.
#[derive(Clone)]
pub(in crate::git) struct GitHttp(Arc<Client>);

struct Client {
    url: RemoteUrl,
    certificate: Option<CertificateFiles>,
    /// The connection that was used last.
    connection: Mutex<Option<(Place, Easy2<Answer>)>>,
    /// Where the repository is, once the server has sent Clavel on.
    redirected: Mutex<Option<String>>,
    /// For how long the server wants to be left alone.
    retry_after: Mutex<Option<Duration>>,
}

/// What is asked for.
struct Request {
    url: String,
    base: String,
    headers: Vec<String>,
    /// The body to post, once it is complete.
    body: Option<Receiver<Vec<u8>>>,
}

/// Where the parts of an answer go, or why there are none.
type Sender = SyncSender<io::Result<Vec<u8>>>;

/// One answer as it comes in.
#[derive(Default)]
struct Answer {
    head: Option<Sender>,
    body: Option<Sender>,
    status: u32,
    /// The headers, in lines.
    lines: Vec<u8>,
    challenges: Vec<gix::bstr::BString>,
    retry_after: Option<Duration>,
    refusal_bytes: usize,
}

impl Answer {
    fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Hands the headers of a success to their reader.
    fn send_head(&mut self) {
        if let Some(head) = self.head.take_if(|_| (200..300).contains(&self.status)) {
            // Nobody reads them where the fetch has ended already.
            let _ = head.send(Ok(std::mem::take(&mut self.lines)));
        }
    }

    /// Hands an error to the reader that is still waiting.
    fn fail(&mut self, error: io::Error) {
        if let Some(waiting) = self.head.take().or_else(|| self.body.take()) {
            let _ = waiting.send(Err(error));
        }
    }
}

impl Handler for Answer {
    fn header(&mut self, line: &[u8]) -> bool {
        if line.starts_with(b"HTTP/") {
            // A proxy's answer, or an interim one, came before.
            let status = line.split(|byte| *byte == b' ').nth(1).and_then(|status| std::str::from_utf8(status).ok());
            self.status = status.and_then(|status| status.trim().parse().ok()).unwrap_or_default();
            self.lines.clear();
            self.challenges.clear();
            self.retry_after = None;
            return true;
        }
        if self.lines.len() + line.len() > MAX_HEADER_BYTES {
            return false;
        }
        self.lines.extend_from_slice(line);
        if let Some((name, value)) = std::str::from_utf8(line).ok().and_then(|line| line.split_once(':')) {
            match name.to_ascii_lowercase().as_str() {
                "www-authenticate" => self.challenges.push(value.trim().into()),
                "retry-after" => self.retry_after = retry_after::parse(value, SystemTime::now()),
                _ => {}
            }
        }
        true
    }

    fn write(&mut self, data: &[u8]) -> Result<usize, WriteError> {
        if !self.is_success() {
            self.refusal_bytes += data.len();
            return Ok(if self.refusal_bytes > MAX_REFUSAL_BYTES { 0 } else { data.len() });
        }
        self.send_head();
        // Where nobody reads any more, the transfer ends.
        let is_sent = self.body.as_ref().is_some_and(|body| body.send(Ok(data.to_vec())).is_ok());
        Ok(if is_sent { data.len() } else { 0 })
    }
}

impl GitHttp {
    /// A client that is not connected yet.
    pub(in crate::git) fn new(url: &RemoteUrl) -> Result<Self, String> {
        let certificate = url.certificate_files()?;
        let (connection, redirected, retry_after) = (Mutex::default(), Mutex::default(), Mutex::default());
        Ok(Self(Arc::new(Client { url: url.clone(), certificate, connection, redirected, retry_after })))
    }

    /// For how long the server said that it wants to be left alone.
    pub(in crate::git) fn retry_after(&self) -> Option<Duration> {
        *lock(&self.0.retry_after)
    }

    fn ask(
        &self,
        url: &str,
        base: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
        body: Option<Receiver<Vec<u8>>>,
    ) -> gix::Result<(Parts, Parts)> {
        let headers = headers.into_iter().map(|header| header.as_ref().to_owned()).collect();
        let request = Request { url: url.to_owned(), base: base.to_owned(), headers, body };
        let ((head, head_reader), (body, body_reader)) = (sync_channel(1), sync_channel(WAITING_PARTS));
        let client = self.0.clone();
        std::thread::Builder::new()
            .stack_size(STACK)
            .spawn(move || client.answer(request, head, body))
            .map_err(gix::Error::from_error)?;
        Ok((Parts::of(head_reader), Parts::of(body_reader)))
    }
}

impl Client {
    /// Sends the request, and the answer to its readers.
    fn answer(&self, request: Request, head: Sender, body: Sender) {
        let Request { mut url, mut base, headers, body: post } = request;
        // Another request has it until its answer was read to the end.
        let mut connection = lock(&self.connection);
        let mut answer = Answer { head: Some(head), body: Some(body), ..Answer::default() };
        // The writer is dropped without a word where the fetch has ended.
        let posted = post.map(|post| post.recv()).transpose().unwrap_or_default();
        let mut place = self.place_of(&base);
        for _ in 0..=MAX_REDIRECTS {
            let (sent, asked, target) = self.send(&mut connection, place, &url, &headers, posted.as_deref(), answer);
            answer = asked;
            let redirected = match (target, posted.is_some()) {
                (None, _) => return self.finish(answer, sent),
                (Some(_), true) => Err("in the middle of a fetch".to_owned()),
                (Some(to), false) => redirect::decide(self.url.parsed(), &base, &url, &to),
            };
            match redirected {
                Ok(Redirect { base: next, place: of_next }) => {
                    url = format!("{next}{}", &url[base.len()..]);
                    (base, place) = (next, of_next);
                    *lock(&self.redirected) = Some(base.clone());
                }
                Err(why) => return answer.fail(io::Error::other(format!("the server sends Clavel on {why}"))),
            }
        }
        answer.fail(io::Error::other(format!("the server sends Clavel on more than {MAX_REDIRECTS} times")));
    }

    /// Asks one URL. Returns the answer, and where the server sends Clavel on to.
    fn send(
        &self,
        connection: &mut Option<(Place, Easy2<Answer>)>,
        place: Place,
        url: &str,
        headers: &[String],
        posted: Option<&[u8]>,
        answer: Answer,
    ) -> (Result<(), curl::Error>, Answer, Option<String>) {
        let known = connection.take().filter(|(of, _)| *of == place);
        let mut easy = known.map_or_else(|| Easy2::new(Answer::default()), |(_, easy)| easy);
        *easy.get_mut() = answer;
        let sent = self.perform(&mut easy, place, url, headers, posted);
        let status = easy.get_ref().status;
        let target = easy.redirect_url().ok().flatten().filter(|_| (300..400).contains(&status)).map(str::to_owned);
        let answer = std::mem::take(easy.get_mut());
        *connection = Some((place, easy));
        (sent, answer, target)
    }

    fn perform(
        &self,
        easy: &mut Easy2<Answer>,
        place: Place,
        url: &str,
        headers: &[String],
        posted: Option<&[u8]>,
    ) -> Result<(), curl::Error> {
        // Certificates and passwords are for the repository's own host.
        let certificate = self.certificate.as_ref().filter(|_| place == Place::Home);
        connection::configure(easy, self.url.access(), certificate)?;
        easy.url(url)?;
        match posted {
            Some(body) => {
                easy.post(true)?;
                easy.post_fields_copy(body)?;
            }
            None => easy.get(true)?,
        }
        let mut list = List::new();
        for header in headers.iter().filter(|header| place == Place::Home || !is_secret(header)) {
            list.append(header)?;
        }
        // libcurl would wait for an answer of its own before a large body.
        list.append("Expect:")?;
        easy.http_headers(list)?;
        easy.perform()
    }

    /// Ends the answer: its last part has come, or it is a refusal.
    fn finish(&self, mut answer: Answer, sent: Result<(), curl::Error>) {
        let status = answer.status;
        if answer.is_success() {
            match sent {
                Ok(()) => answer.send_head(),
                Err(error) => answer.fail(io::Error::other(connection::describe(&error, self.url.access()))),
            }
            return;
        }
        let error = match sent {
            // The connection failed before the server answered, or after a proxy did.
            Err(error) if answer.refusal_bytes <= MAX_REFUSAL_BYTES => {
                io::Error::other(connection::describe(&error, self.url.access()))
            }
            Ok(()) | Err(_) if status == 401 => {
                let www_authenticate = std::mem::take(&mut answer.challenges);
                io::Error::new(io::ErrorKind::PermissionDenied, AuthenticationRequired { www_authenticate })
            }
            Ok(()) | Err(_) => {
                *lock(&self.retry_after) = answer.retry_after.filter(|_| retry_after::is_for(status));
                io::Error::other(format!("Received HTTP status {status}"))
            }
        };
        answer.fail(error);
    }

    fn place_of(&self, base: &str) -> Place {
        gix::url::parse(base).map_or(Place::Elsewhere, |base| redirect::place_of(self.url.parsed(), &base))
    }
}

/// Whether a header is for one host alone.
fn is_secret(header: &str) -> bool {
    header.split(':').next().is_some_and(|name| name.trim().eq_ignore_ascii_case("authorization"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a thread that panicked left is a connection or a URL, and either is whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Http for GitHttp {
    type Headers = Parts;
    type ResponseBody = Parts;
    type PostBody = PostBody;

    fn get(
        &mut self,
        url: &str,
        base_url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> gix::Result<GetResponse<Parts, Parts>> {
        let (headers, body) = self.ask(url, base_url, headers, None)?;
        Ok(GetResponse { headers, body })
    }

    fn post(
        &mut self,
        url: &str,
        base_url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
        // What a fetch posts is the names of some commits: it fits into memory.
        _body: PostBodyDataKind,
    ) -> gix::Result<PostResponse<Parts, Parts, PostBody>> {
        let (send, posted) = sync_channel(1);
        let (headers, body) = self.ask(url, base_url, headers, Some(posted))?;
        Ok(PostResponse { post_body: PostBody { bytes: Vec::new(), send }, headers, body })
    }

    /// The settings of git's configuration: Clavel has its own.
    fn configure(&mut self, _config: &dyn std::any::Any) -> gix::Result<()> {
        Ok(())
    }

    fn redirected_base_url(&self) -> Option<String> {
        lock(&self.0.redirected).clone()
    }
}

/// What is posted. It is sent once this is dropped.
pub(in crate::git) struct PostBody {
    bytes: Vec<u8>,
    send: SyncSender<Vec<u8>>,
}

impl Write for PostBody {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for PostBody {
    fn drop(&mut self) {
        let _ = self.send.send(without_progress(std::mem::take(&mut self.bytes)));
    }
}

/// Asks the server to leave out its progress, which nobody reads, where the body is the command that fetches (gitprotocol-v2(5)). The
/// progress of a small change is as large as the change. gix never asks for that.
fn without_progress(mut body: Vec<u8>) -> Vec<u8> {
    const LENGTH: usize = 4;
    let is_fetch = body.get(LENGTH..).is_some_and(|rest| rest.starts_with(b"command=fetch"));
    if is_fetch && body.ends_with(FLUSH) {
        body.truncate(body.len() - FLUSH.len());
        body.extend_from_slice(NO_PROGRESS);
        body.extend_from_slice(FLUSH);
    }
    body
}

/// The parts of an answer, as a reader.
pub(in crate::git) struct Parts {
    waiting: Receiver<io::Result<Vec<u8>>>,
    part: Vec<u8>,
    at: usize,
}

impl Parts {
    fn of(parts: Receiver<io::Result<Vec<u8>>>) -> Self {
        Self { waiting: parts, part: Vec::new(), at: 0 }
    }
}

impl BufRead for Parts {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.at == self.part.len() {
            match self.waiting.recv() {
                Ok(part) => (self.part, self.at) = (part?, 0),
                // The other end is dropped behind the last part.
                Err(_) => return Ok(&[]),
            }
        }
        Ok(&self.part[self.at..])
    }

    fn consume(&mut self, count: usize) {
        self.at = (self.at + count).min(self.part.len());
    }
}

impl Read for Parts {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(into)?;
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_fetch_is_asked_to_be_without_progress() {
        let asked = |body: &[u8]| without_progress(body.to_vec());
        assert_eq!(
            asked(b"0012command=fetch\n00010009done\n0000"),
            b"0012command=fetch\n00010009done\n0010no-progress\n0000"
        );
        for other in
            [&b"0014command=ls-refs\n00010000"[..], b"0032want 1\n0000", b"0012command=fetch\n0001", b"00", b""]
        {
            assert_eq!(asked(other), other);
        }
    }
}
