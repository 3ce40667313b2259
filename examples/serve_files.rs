//! Serves the files of one directory on a free port of 127.0.0.1 until it is ended: the demo's binary cache.
//!
//!     serve_files DIR ADDRESS_FILE
//!
//! The URL is in `ADDRESS_FILE` as soon as it can be asked.

use std::error::Error;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;
use tiny_http::{Method, Request, Response, Server};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let [directory, address_file] = arguments.as_slice() else {
        return Err("usage: serve_files DIR ADDRESS_FILE".into());
    };
    // Resolved once, so that what is asked for can be compared with it.
    let root = fs::canonicalize(directory)?;
    let server = Server::http("127.0.0.1:0").map_err(|error| format!("cannot listen on 127.0.0.1: {error}"))?;
    announce(Path::new(address_file), &format!("http://{}\n", server.server_addr()))?;
    for request in server.incoming_requests() {
        // A client that went away in the middle of an answer is no reason to leave the others.
        let _ = answer(&root, request);
    }
    Ok(())
}

/// Whoever waits for the file finds the whole URL in it or no file at all.
fn announce(file: &Path, url: &str) -> io::Result<()> {
    let mut unfinished = file.as_os_str().to_owned();
    unfinished.push(".new");
    fs::write(&unfinished, url)?;
    fs::rename(unfinished, file)
}

fn answer(root: &Path, request: Request) -> io::Result<()> {
    // tiny_http leaves the body out of the answer to a HEAD by itself.
    if !matches!(request.method(), Method::Get | Method::Head) {
        return request.respond(Response::empty(405));
    }
    match find(root, request.url()).and_then(|path| File::open(path).ok()) {
        Some(file) => request.respond(Response::from_file(file)),
        None => request.respond(Response::empty(404)),
    }
}

/// The regular file that `url` names below `root`, wherever links lead.
fn find(root: &Path, url: &str) -> Option<PathBuf> {
    let path = url.split(['?', '#']).next()?.strip_prefix('/')?;
    let path = percent_decode_str(path).decode_utf8().ok()?;
    // `join` would take an absolute path as it is, and `..` would climb; both are caught here, as links are.
    let found = fs::canonicalize(root.join(&*path)).ok()?;
    (found.starts_with(root) && !path.split('/').any(|part| part == "..") && found.is_file()).then_some(found)
}
