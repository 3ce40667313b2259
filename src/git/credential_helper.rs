//! The credential helper that `git` gets: the running program itself, which reads the password where it is.
//!
//! So the password is in no variable, which all that git starts would inherit, and in no file of Clavel's. What `git` says and is told is
//! that of `gitcredentials(7)`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::access::quoted;
use super::credentials::Credentials;
use super::login::Login;
use crate::model::json;
use crate::process::this_program;

/// The hidden subcommand, to which git adds what it wants.
const CREDENTIAL_COMMAND: &str = "credential";
/// What git wants where it wants a login.
const GET: &str = "get";
/// The variable with the [`LoginRequest`]. It says where the password is, and not the password.
pub(super) const LOGIN: &str = "CLAVEL_GIT_LOGIN";
/// The most bytes of a request.
const MAX_REQUEST_BYTES: u64 = 64 << 10;

/// Whose login it is, and where the password is.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LoginRequest {
    url: String,
    credentials: Credentials,
}

/// The helper as git's settings name it, and the value of [`LOGIN`].
pub(super) fn for_git(url: &gix::Url, credentials: &Credentials) -> Result<(String, String), String> {
    let program = this_program().map_err(|error| format!("cannot find the file of this program: {error}"))?;
    // git runs the helper, so `self` would be git.
    let is_link = program.starts_with("/proc/self");
    let program = if is_link { PathBuf::from(format!("/proc/{}/exe", std::process::id())) } else { program };
    let request = LoginRequest { url: url.to_bstring().to_string(), credentials: credentials.clone() };
    let request = String::from_utf8_lossy(&json::compact(&request)).into_owned();
    Ok((format!("!{} {CREDENTIAL_COMMAND}", quoted(&program.to_string_lossy())), request))
}

/// Whether these arguments are of git, for its helper.
pub fn is_call(arguments: &[std::ffi::OsString]) -> bool {
    matches!(arguments, [command, _] if command == CREDENTIAL_COMMAND) && std::env::var_os(LOGIN).is_some()
}

/// The answer to git. Nothing is stored, so only the wish for a login has one. The error has no secret.
pub fn answer(wish: &str) -> Result<Vec<u8>, String> {
    let request = std::env::var(LOGIN).map_err(|error| format!("cannot read the variable {LOGIN}: {error}"))?;
    answer_to(wish, &request)
}

fn answer_to(wish: &str, request: &str) -> Result<Vec<u8>, String> {
    if wish != GET {
        return Ok(Vec::new());
    }
    let request: Result<LoginRequest, _> = json::parse(request.as_bytes(), MAX_REQUEST_BYTES);
    let LoginRequest { url, credentials } = request.map_err(|error| format!("cannot read {LOGIN}: {error}"))?;
    let url = gix::url::parse(url.as_str()).map_err(|_| format!("the URL in {LOGIN} cannot be read"))?;
    let Some(Login { user, password }) = credentials.login(&url)? else { return Ok(Vec::new()) };
    // A line break would begin another line of the protocol.
    if [&user, &password].iter().any(|text| text.contains(['\n', '\0'])) {
        return Err("the user or the password that [[credentials]] names has a line break in it".to_owned());
    }
    Ok(format!("username={user}\npassword={password}\n").into_bytes())
}

#[cfg(test)]
mod tests {
    use super::super::credentials::SecretLocation;
    use super::*;

    #[test]
    fn git_is_told_the_login_and_nothing_is_stored() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "s3cret\n").unwrap();
        let url = gix::url::parse("https://h:8443/fleet.git").unwrap();
        let credentials = Credentials { user: Some("me".to_owned()), secret: SecretLocation::File(file.clone()) };
        let (helper, request) = for_git(&url, &credentials).unwrap();
        assert!(helper.starts_with("!'/") && helper.ends_with("' credential"), "{helper}");
        assert!(!request.contains("s3cret"), "{request}");
        assert_eq!(answer_to("get", &request).unwrap(), b"username=me\npassword=s3cret\n");
        assert_eq!(answer_to("store", &request).unwrap(), b"");
        std::fs::remove_file(file).unwrap();
        assert!(answer_to("get", &request).unwrap_err().contains("cannot be read"));
        assert!(answer_to("get", "{}").is_err());
    }
}
