//! For how long a server does not want to be asked again: the header `Retry-After` (RFC 9110, section 10.2.3).

use std::time::{Duration, SystemTime};

/// The longest time that a server's word counts: 4 hours. The operator of a server may not keep an agent from a fleet's changes for days.
pub const MAX_RETRY_AFTER: Duration = Duration::from_hours(4);

/// The time that the value of the header names, from `now` on: seconds, or an HTTP date. At most [`MAX_RETRY_AFTER`]; `None` where it
/// cannot be read, or names no time to come.
pub(in crate::git) fn parse(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    let wait = if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are a long time too.
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        httpdate::parse_http_date(value).ok()?.duration_since(now).ok()?
    };
    (!wait.is_zero()).then_some(wait.min(MAX_RETRY_AFTER))
}

/// Whether the header counts with this status: the server is asked too often, or is closed for a time.
pub(in crate::git) fn is_for(status: u32) -> bool {
    matches!(status, 429 | 503)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_names_seconds_or_a_date_and_not_days() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_mins(24_090_208);
        for (value, seconds) in [
            ("120", Some(120)),
            (" 1 ", Some(1)),
            ("0", None),
            ("86400", Some(14400)),
            ("99999999999999999999999", Some(14400)),
            ("Wed, 21 Oct 2015 07:28:30 GMT", Some(30)),
            ("Wed, 21 Oct 2015 07:28:00 GMT", None),
            ("Tue, 20 Oct 2015 07:28:00 GMT", None),
            ("Thu, 21 Oct 2055 07:28:00 GMT", Some(14400)),
            ("", None),
            ("-5", None),
            ("soon", None),
            ("1.5", None),
        ] {
            assert_eq!(parse(value, now).map(|wait| wait.as_secs()), seconds, "{value:?}");
        }
    }
}
