//! The `[[credentials]]` tables, which both configurations have: who Clavel is to the host of a repository.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::git::{Credentials, Remote};

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct CredentialsTable {
    /// The beginning of the URLs that it is about.
    url: Remote,
    user: Option<String>,
    password_file: PathBuf,
}

/// The settings of all tables.
pub(super) struct AllCredentials<'a> {
    tables: &'a [CredentialsTable],
    directory: &'a Path,
}

impl<'a> AllCredentials<'a> {
    /// Checks the tables. The paths in them are relative to `directory`.
    pub(super) fn new(tables: &'a [CredentialsTable], directory: &'a Path) -> Result<Self, (&'static str, String)> {
        match tables.iter().find(|table| !table.url.to_string().starts_with("https://")) {
            Some(table) => Err(("credentials.url", format!("{} is not an https:// URL", table.url))),
            None => Ok(Self { tables, directory }),
        }
    }

    /// The remote with the credentials of the longest URL that it begins with.
    pub(super) fn of(&self, remote: Remote) -> Remote {
        let text = remote.to_string();
        let is_below = |url: &str| text.strip_prefix(url).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let url_of = |table: &CredentialsTable| table.url.to_string().trim_end_matches('/').to_owned();
        let matching = self.tables.iter().filter(|table| is_below(&url_of(table)));
        let longest = matching.max_by_key(|table| url_of(table).len());
        remote.with_credentials(longest.map(|table| Credentials {
            user: table.user.clone().unwrap_or_else(|| "git".to_owned()),
            password_file: self.directory.join(&table.password_file),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_url_that_a_repository_begins_with_counts() {
        let table = |url: &str, file: &str| CredentialsTable {
            url: url.parse().unwrap(),
            user: None,
            password_file: file.into(),
        };
        let tables = [table("https://git.example.org/", "all"), table("https://git.example.org/team", "team")];
        let all = AllCredentials::new(&tables, Path::new("/etc/clavel")).ok().unwrap();
        let file = |url: &str| {
            let remote = all.of(url.parse().unwrap());
            remote.credentials().map(|found| found.password_file.display().to_string())
        };
        assert_eq!(file("https://git.example.org/fleet.git").as_deref(), Some("/etc/clavel/all"));
        assert_eq!(file("https://git.example.org/team/fleet.git").as_deref(), Some("/etc/clavel/team"));
        assert_eq!(file("https://git.example.org/teams.git").as_deref(), Some("/etc/clavel/all"));
        assert_eq!(file("https://git.example.org.evil.example/fleet.git"), None);
        assert_eq!(file("ssh://git.example.org/fleet.git"), None);
        let clear = [table("http://git.example.org", "all")];
        assert!(AllCredentials::new(&clear, Path::new("/")).is_err());
    }
}
