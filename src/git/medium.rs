//! Work on a medium that may not answer, such as a stick that is broken.

use std::io;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

/// Does `work` in a thread of this name. Returns its result; `None` where there was none within the time. The thread is left behind then:
/// the system lets nobody end a call that waits for a medium.
pub async fn on_medium<T: Send + 'static>(
    thread: &str,
    within: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<Option<T>> {
    let (sender, result) = oneshot::channel();
    // Nobody may wait for it any more.
    let run = move || drop(sender.send(work()));
    std::thread::Builder::new().name(thread.to_owned()).spawn(run)?;
    Ok(timeout(within, result).await.ok().and_then(Result::ok))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn a_medium_that_does_not_answer_is_left_behind() {
        let minute = Duration::from_mins(1);
        assert_eq!(on_medium("answers", minute, || 7).await.unwrap(), Some(7));
        let (_open, never) = mpsc::channel::<()>();
        let silent = on_medium("silent", Duration::from_millis(1), move || never.recv().is_ok()).await;
        assert_eq!(silent.unwrap(), None);
    }
}
