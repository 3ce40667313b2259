//! This machine, as a check of a set-up sees it: the programs on the PATH, the Nix store, and folders.
//!
//! It changes nothing. The checks of the two services and of an operator's commands belong to their rooms.

mod folders;
mod programs;

pub use folders::{check_folder, free_space};
pub use programs::{check_git, check_nix, check_ssh, find_executable};

use std::time::Duration;

use crate::model::CheckFinding;

/// The findings of `look`, or a problem where it takes longer than `limit`.
pub async fn within(
    subject: &str,
    limit: Duration,
    look: impl Future<Output = Vec<CheckFinding>>,
) -> Vec<CheckFinding> {
    tokio::time::timeout(limit, look).await.unwrap_or_else(|_| {
        let message = format!("it did not answer within {}", humantime::format_duration(limit));
        vec![CheckFinding::problem(subject, message).advise("see whether its server or its disk hangs")]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn a_look_that_hangs_is_a_problem() {
        let found = within("source x", Duration::from_millis(1), std::future::pending()).await;
        assert_eq!(found.len(), 1);
        assert!(found[0].message.contains("did not answer within 1ms"), "{found:?}");
        let good = vec![CheckFinding::ok("x", "y")];
        assert_eq!(within("x", Duration::from_mins(1), async { good.clone() }).await, good);
    }
}
