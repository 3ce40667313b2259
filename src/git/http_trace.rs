//! The headers of a server's answer to git, which git itself shows to nobody: for how long the server wants to be left alone.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::time::{Duration, SystemTime};

use gix::url::Scheme;
use tempfile::NamedTempFile;

use super::host_key::private_file;
use super::http::retry_after;
use super::remote_url::RemoteUrl;
use crate::process::Invocation;

/// The most bytes of a trace that are read, from its end. The last answer is there, and a server may have sent any number before.
const MAX_BYTES: u64 = 256 << 10;

/// The file to which git writes the headers of one run (`git(1)`, `GIT_TRACE_CURL`). It is removed when this is dropped.
pub(super) struct HttpTrace(NamedTempFile);

impl HttpTrace {
    /// A new one, for a URL of HTTP. `None` for another URL, or where there is no place for a file: then nothing is known.
    pub(super) fn of(url: &RemoteUrl) -> Option<Self> {
        let is_http = matches!(url.parsed().scheme, Scheme::Http | Scheme::Https);
        is_http.then(|| private_file("").ok()).flatten().map(Self)
    }

    /// Makes `git` write there.
    pub(super) fn give_to(&self, git: Invocation) -> Invocation {
        git.env("GIT_TRACE_CURL", self.0.path())
            // Without what is pushed, and without the password.
            .env("GIT_TRACE_CURL_NO_DATA", "1")
            .env("GIT_TRACE_REDACT", "1")
    }

    /// For how long the server wants to be left alone, from now on.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        let end = end_of(&mut self.0.reopen().ok()?, MAX_BYTES).ok()?;
        retry_after_in(&String::from_utf8_lossy(&end), SystemTime::now())
    }
}

/// The last bytes of a file, which are `most` at most, whatever its length is and however it grows meanwhile.
fn end_of(file: &mut File, most: u64) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(file.metadata()?.len().saturating_sub(most)))?;
    let mut end = Vec::new();
    file.take(most).read_to_end(&mut end)?;
    Ok(end)
}

/// What the last answer in a trace says.
fn retry_after_in(trace: &str, now: SystemTime) -> Option<Duration> {
    const HEADER: &str = "<= Recv header: ";
    let (mut status, mut found) = (0, None);
    for header in trace.lines().filter_map(|line| line.split_once(HEADER).map(|(_, header)| header.trim())) {
        if header.starts_with("HTTP/") {
            status = header.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
            found = None;
        } else if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("retry-after")
            && retry_after::is_for(status)
        {
            found = retry_after::parse(value, now);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_a_long_trace_is_read() {
        let trace = HttpTrace(private_file("").unwrap());
        let answer = |seconds: u32| format!("<= Recv header: HTTP/1.1 429 x\n<= Recv header: Retry-After: {seconds}\n");
        let filler = "== Info: x\n".repeat(usize::try_from(MAX_BYTES).unwrap() / 10);
        let write = |text: &str| std::fs::write(trace.0.path(), text).unwrap();
        write(&format!("{}{filler}{}", answer(7), answer(9)));
        assert_eq!(trace.retry_after(), Some(Duration::from_secs(9)));
        // What is too far from the end is not known, and half of an answer is none.
        write(&format!("{}{filler}", answer(7)));
        assert_eq!(trace.retry_after(), None);
        write("0123456789");
        let end = |most| String::from_utf8(end_of(&mut trace.0.reopen().unwrap(), most).unwrap()).unwrap();
        assert_eq!([end(4), end(10), end(11)], ["6789", "0123456789", "0123456789"]);
    }

    #[test]
    fn the_last_answer_counts_and_only_a_refusal_for_a_time() {
        let trace = |headers: &[&str]| {
            let lines = headers.iter().map(|header| format!("07:28:00.1 http.c:756  <= Recv header: {header}\n"));
            lines.collect::<String>()
        };
        let of = |headers: &[&str]| retry_after_in(&trace(headers), SystemTime::UNIX_EPOCH).map(|wait| wait.as_secs());
        assert_eq!(of(&["HTTP/1.1 429 Too Many Requests", "Server: x", "retry-after: 7", ""]), Some(7));
        assert_eq!(of(&["HTTP/2 503", "Retry-After: Thu, 01 Jan 1970 00:00:09 GMT"]), Some(9));
        assert_eq!(of(&["HTTP/1.1 200 OK", "Retry-After: 7"]), None);
        assert_eq!(of(&["HTTP/1.1 429 x", "Retry-After: 7", "HTTP/1.1 200 OK"]), None);
        assert_eq!(of(&["HTTP/1.1 429 x"]), None);
        assert_eq!(retry_after_in("=> Send header: Retry-After: 7\n", SystemTime::UNIX_EPOCH), None);
    }
}
