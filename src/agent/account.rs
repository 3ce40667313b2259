//! The users of this machine, and the user that an activation runs as: some platforms deploy to a person's home.
//!
//! Running the activation belongs to `activate`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use uzers::os::unix::UserExt as _;

use crate::config::UserName;

/// Why an activation has no user that it can run as.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// This machine has no such user.
    #[error("this machine has no user `{user}`")]
    Unknown {
        /// The name, or the number if the agent's own user has no name.
        user: String,
    },
    /// The agent runs as root, and the configuration does not name the user of the home.
    #[error(
        "its configuration does not name the user whose home it is, and the agent runs as root; add `user = \"…\"`"
    )]
    Unnamed,
    /// The agent's own user may not run programs as another user.
    #[error("it belongs to the user `{user}`, and the agent runs as `{own}`; run the agent as `{user}` or as root")]
    NotAllowed {
        /// The user of the home.
        user: String,
        /// The agent's user.
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

/// The user that a program runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RunAs {
    /// The agent's own user.
    Agent,
    /// This user, which needs root.
    User(String),
}

impl Account {
    /// The user of the agent.
    pub(super) fn own() -> Result<Self, AccountError> {
        let uid = rustix::process::geteuid().as_raw();
        uzers::get_user_by_uid(uid)
            .map(|user| Self::of(&user))
            .ok_or_else(|| AccountError::Unknown { user: uid.to_string() })
    }

    /// The user with this name.
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

/// The user of a home, and how the agent, whose user is `own`, runs programs there. The configuration names `wanted`.
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
    /// The words before a program's path that make it run as this user on `os`, a value of `std::env::consts::OS`.
    pub(super) fn prefix(&self, os: &str) -> Vec<OsString> {
        let words: &[&str] = match (self, os) {
            (Self::Agent, _) => &[],
            // It needs no password and no shell, sets the user's groups, and stays in the process group that the deadline ends.
            (Self::User(user), "linux") => &["runuser", "-u", user, "--"],
            // -n: never ask for a password; -H: use that user's home; --preserve-env: keep the CLAVEL_ variables.
            (Self::User(user), _) => &["sudo", "-n", "-H", "--preserve-env", "-u", user, "--"],
        };
        words.iter().map(OsString::from).collect()
    }
}

/// The variables of the agent's environment that would lead another user's programs to the agent's files.
pub(super) const USER_VARIABLES: [&str; 6] = [
    "DBUS_SESSION_BUS_ADDRESS",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
    "XDG_STATE_HOME",
];

/// The paths of home-manager's profile. The first one that exists is in use.
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
    fn only_root_runs_an_activation_as_another_user() {
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
    fn each_system_has_its_own_program_to_run_as_another_user() {
        let words = |run_as: RunAs, os| {
            let words: Vec<String> = run_as.prefix(os).iter().map(|word| word.to_string_lossy().into_owned()).collect();
            words.join(" ")
        };
        assert_eq!(words(RunAs::Agent, "linux"), "");
        assert_eq!(words(RunAs::User("alice".to_owned()), "linux"), "runuser -u alice --");
        assert_eq!(words(RunAs::User("alice".to_owned()), "macos"), "sudo -n -H --preserve-env -u alice --");
    }

    #[test]
    fn the_users_of_the_machine_are_found() {
        let own = Account::own().unwrap();
        assert_eq!(own.uid, rustix::process::geteuid().as_raw());
        assert_eq!(Account::named(&"root".parse().unwrap()).unwrap().uid, 0);
        let unknown = Account::named(&"no-such-user".parse().unwrap()).unwrap_err();
        assert_eq!(unknown.to_string(), "this machine has no user `no-such-user`");
    }
}
