//! The status with which a server answers a plain request.

use std::time::Duration;

use curl::easy::{Easy2, Handler, WriteError};

use super::connection::describe;
use crate::git::access::Access;
use crate::git::certificates::Certificates;

/// The most bytes of an answer that are taken.
const MAX_BYTES: usize = 1 << 20;

/// Counts the body of an answer, and keeps nothing.
struct Body(usize);

impl Handler for Body {
    fn write(&mut self, data: &[u8]) -> Result<usize, WriteError> {
        self.0 += data.len();
        Ok(if self.0 > MAX_BYTES { 0 } else { data.len() })
    }
}

/// Asks for `url`, and returns the status of the answer. No redirect is followed and no proxy asked. The call blocks, at most for
/// `within`.
pub fn http_status(url: &str, within: Duration) -> Result<u32, String> {
    let (mut easy, direct) = (Easy2::new(Body(0)), Access::default());
    let set_up = |easy: &mut Easy2<Body>| -> Result<(), curl::Error> {
        easy.url(url)?;
        easy.timeout(within)?;
        easy.proxy("")?;
        easy.useragent(concat!("clavel-agent/", env!("CARGO_PKG_VERSION")))
    };
    set_up(&mut easy).map_err(|error| describe(&error, &direct))?;
    if url.starts_with("https:") {
        let certificates = Certificates::of_this_machine(None).map_err(|error| error.to_string())?;
        certificates.apply_to(&mut easy).map_err(|error| describe(&error, &direct))?;
    }
    match easy.perform() {
        // The status is known before the body.
        Err(_) if easy.get_ref().0 > MAX_BYTES => {}
        performed => performed.map_err(|error| describe(&error, &direct))?,
    }
    easy.response_code().map_err(|error| describe(&error, &direct))
}
