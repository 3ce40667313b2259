//! The users of this machine, and as whom an activation runs: some platforms deploy to a person's home.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use uzers::os::unix::UserExt as _;

use crate::config::UserName;

/// Why an activation cannot run as it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// This machine has no such user.
    #[error("this machine has no user `{user}`")]
    Unknown {
        /// The name, or the number where the agent's own user has none.
        user: String,
    },
    /// The agent runs as root, and nobody says whose home it is.
    #[error(
        "the configuration does not name the user whose home it is, and the agent runs as root; add `user = \"…\"`"
    )]
    Unnamed,
    /// The agent runs as somebody who may not run programs as others.
    #[error("it belongs to the user `{user}`, and the agent runs as `{own}`; run the agent as `{user}` or as root")]
    NotAllowed {
        /// Whose home it is.
        user: String,
        /// As whom the agent runs.
        own: String,
    },
}

/// A user of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) home: PathBuf,
}

/// As whom a program runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RunAs {
    /// As the agent itself.
    Agent,
    /// As this user, which needs root.
    User(String),
}

impl Account {
    /// The one that the agent runs as.
    pub(super) fn own() -> Result<Self, AccountError> {
        let uid = rustix::process::geteuid().as_raw();
        uzers::get_user_by_uid(uid)
            .map(|user| Self::of(&user))
            .ok_or_else(|| AccountError::Unknown { user: uid.to_string() })
    }

    /// The one of this name.
    pub(super) fn named(name: &UserName) -> Result<Self, AccountError> {
        uzers::get_user_by_name(name.as_str())
            .map(|user| Self::of(&user))
            .ok_or_else(|| AccountError::Unknown { user: name.to_string() })
    }

    fn of(user: &uzers::User) -> Self {
        let name = user.name().to_string_lossy().into_owned();
        Self { name, uid: user.uid(), home: user.home_dir().to_owned() }
    }

    fn is_root(&self) -> bool {
        self.uid == 0
    }
}

/// Whose home it is, and how the agent, which is `own`, runs programs there. `wanted` is whom the configuration names.
pub(super) fn at_home_of(own: Account, wanted: Option<Account>) -> Result<(Account, RunAs), AccountError> {
    match wanted {
        None if own.is_root() => Err(AccountError::Unnamed),
        None => Ok((own, RunAs::Agent)),
        Some(user) if user.uid == own.uid => Ok((user, RunAs::Agent)),
        Some(user) if own.is_root() => {
            let run_as = RunAs::User(user.name.clone());
            Ok((user, run_as))
        }
        Some(user) => Err(AccountError::NotAllowed { user: user.name, own: own.name }),
    }
}

impl RunAs {
    /// What stands before a program's path to run it so, on the system `os` (as `std::env::consts::OS` has it).
    pub(super) fn prefix(&self, os: &str) -> Vec<OsString> {
        let words: &[&str] = match (self, os) {
            (Self::Agent, _) => &[],
            // No password, no shell, the groups of that user and the process group of the agent, which its deadline ends.
            (Self::User(user), "linux") => &["runuser", "-u", user, "--"],
            // -n: nobody is there to type a password; -H: that user's home; the CLAVEL_ variables stay.
            (Self::User(user), _) => &["sudo", "-n", "-H", "--preserve-env", "-u", user, "--"],
        };
        words.iter().map(OsString::from).collect()
    }
}

/// What of the agent's own environment would lead another user's programs to the agent's files.
pub(super) const OF_A_USER: [&str; 6] = [
    "DBUS_SESSION_BUS_ADDRESS",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
    "XDG_STATE_HOME",
];

/// Where home-manager puts its profile, the first of those that are there.
pub(super) fn home_manager_profiles(user: &Account) -> Vec<PathBuf> {
    let of_all = Path::new("/nix/var/nix/profiles/per-user").join(&user.name).join("home-manager");
    vec![user.home.join(".local/state/nix/profiles/home-manager"), of_all]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(name: &str, uid: u32) -> Account {
        Account { name: name.to_owned(), uid, home: Path::new("/home").join(name) }
    }

    #[test]
    fn root_becomes_whom_it_is_told_and_nobody_else_becomes_another() {
        let (root, alice, bob) = (account("root", 0), account("alice", 1000), account("bob", 1001));
        let run_as = |own: &Account, wanted: Option<&Account>| at_home_of(own.clone(), wanted.cloned()).map(|(_, r)| r);
        assert_eq!(run_as(&root, Some(&alice)), Ok(RunAs::User("alice".to_owned())));
        assert_eq!(run_as(&root, Some(&root)), Ok(RunAs::Agent));
        assert_eq!(run_as(&alice, Some(&alice)), Ok(RunAs::Agent));
        assert_eq!(run_as(&alice, None), Ok(RunAs::Agent));
        assert_eq!(run_as(&root, None), Err(AccountError::Unnamed));
        let not_allowed = run_as(&bob, Some(&alice)).unwrap_err().to_string();
        assert!(not_allowed.contains("belongs to the user `alice`, and the agent runs as `bob`"), "{not_allowed}");
    }

    #[test]
    fn each_system_has_its_own_way_to_become_another() {
        let words = |run_as: RunAs, os| {
            let words: Vec<String> = run_as.prefix(os).iter().map(|word| word.to_string_lossy().into_owned()).collect();
            words.join(" ")
        };
        assert_eq!(words(RunAs::Agent, "linux"), "");
        assert_eq!(words(RunAs::User("alice".to_owned()), "linux"), "runuser -u alice --");
        assert_eq!(words(RunAs::User("alice".to_owned()), "macos"), "sudo -n -H --preserve-env -u alice --");
    }

    #[test]
    fn the_machine_knows_its_users() {
        let own = Account::own().unwrap();
        assert_eq!(own.uid, rustix::process::geteuid().as_raw());
        assert_eq!(Account::named(&"root".parse().unwrap()).unwrap().uid, 0);
        let unknown = Account::named(&"no-such-user".parse().unwrap()).unwrap_err();
        assert_eq!(unknown.to_string(), "this machine has no user `no-such-user`");
    }
}
