//! What every connection over HTTP has, for git's protocol and for the files of a static folder.

use std::time::Duration;

use curl::easy::{Easy2, Handler};

use crate::git::access::Access;
use crate::git::client_certificate::CertificateFiles;
use crate::redact::without_users;

/// The most bytes of the headers of one answer.
pub(in crate::git) const MAX_HEADER_BYTES: usize = 32 << 10;
/// The connection to a server that does not answer is ended after this time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// A transfer that is slower than so many bytes a second is ended…
const LOW_SPEED_BYTES: u32 = 100;
/// …after this time.
const LOW_SPEED_TIME: Duration = Duration::from_mins(1);

/// Sets up a connection. libcurl itself follows no redirect: it would take the client certificate along. The certificates that vouch for the
/// server come from the environment ([`Access::for_gix`]).
pub(in crate::git) fn configure<H: Handler>(
    easy: &mut Easy2<H>,
    access: &Access,
    certificate: Option<&CertificateFiles>,
) -> Result<(), curl::Error> {
    easy.follow_location(false)?;
    easy.connect_timeout(CONNECT_TIMEOUT)?;
    easy.low_speed_limit(LOW_SPEED_BYTES)?;
    easy.low_speed_time(LOW_SPEED_TIME)?;
    easy.tcp_keepalive(true)?;
    if let Some(proxy) = &access.proxy {
        easy.proxy(&proxy.to_string())?;
    }
    if let Some(CertificateFiles { certificate, key }) = certificate {
        easy.ssl_cert(certificate)?;
        easy.ssl_key(key)?;
    }
    Ok(())
}

/// The words of libcurl, without the user of a URL, and with the proxy where the connection to it may be what failed.
pub(in crate::git) fn describe(error: &curl::Error, access: &Access) -> String {
    let more = error.extra_description().map(|more| format!(": {more}")).unwrap_or_default();
    let words = without_users(&format!("{}{more}", error.description()));
    match &access.proxy {
        Some(proxy) if error.is_couldnt_connect() || error.is_couldnt_resolve_proxy() => {
            format!("through the proxy {proxy}: {words}")
        }
        Some(_) | None => words,
    }
}
