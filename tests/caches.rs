//! Promise: a cache that is broken, slow or off does not keep an agent from the next one, which has the path.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::support::world::World;

/// How a cache is broken.
#[derive(Debug, Clone, Copy)]
enum Broken {
    /// It answers everything with this.
    Answers(&'static str),
    /// It answers that it is a cache, and everything else with this.
    OnlyIsACache(&'static str),
    /// It takes connections, and never answers.
    Hangs,
    /// It answers that it is a cache, and never answers anything else.
    HangsLater,
    /// The same, and everything else comes byte by byte.
    Drips,
}

const ERROR_500: &str = "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const ERROR_502: &str = "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const HTML: &str = "HTTP/1.1 200 OK\r\nContent-Length: 15\r\nConnection: close\r\n\r\n<html>hi</html>";
const LOOP: &str = "HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const IS_A_CACHE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 21\r\nConnection: close\r\n\r\nStoreDir: /nix/store\n";

/// Serves a broken cache until the test ends. Returns its address.
fn serve(broken: Broken) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let mut open: Vec<TcpStream> = Vec::new();
        for connection in listener.incoming() {
            let Ok(mut connection) = connection else { return };
            let mut request = [0; 4096];
            let _ = connection.set_read_timeout(Some(Duration::from_secs(5)));
            let length = connection.read(&mut request).unwrap_or(0);
            let asks_what_it_is = request[..length].starts_with(b"GET /nix-cache-info");
            let answer = match broken {
                Broken::OnlyIsACache(_) | Broken::HangsLater | Broken::Drips if asks_what_it_is => Some(IS_A_CACHE),
                Broken::Answers(answer) | Broken::OnlyIsACache(answer) => Some(answer),
                Broken::Drips => {
                    std::thread::spawn(move || drip(connection));
                    continue;
                }
                Broken::Hangs | Broken::HangsLater => None,
            };
            match answer {
                Some(answer) => drop(connection.write_all(answer.as_bytes())),
                None => open.push(connection),
            }
        }
    });
    url
}

/// Answers with a byte every second, without an end.
fn drip(mut connection: TcpStream) {
    let _ = connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n");
    while connection.write_all(b"S").is_ok() {
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// A fleet whose deployments name these caches, and then one that has their paths.
fn with_caches(first: &str) -> World {
    let world = World::new();
    let (cache, key) = (world.at("cache"), world.public_key("cache-1"));
    let caches =
        format!("{{ substituters = [ \"{first}\" \"file://{cache}\" ]; substituters-public-keys = [ \"{key}\" ]; }}\n");
    world.write("caches.nix", &caches);
    world.push("Two caches");
    world.publish_with_nix(&["web-1"]);
    world.configure_agent("web-1", &format!("file://{}", world.at("fleet.git")), "");
    world
}

fn is_fetched_from_the_next_cache(broken: Broken) {
    let world = with_caches(&serve(broken));
    let begun = Instant::now();
    let ran = world.agent("web-1", &["once"]);
    let (code, took) = (ran.code, begun.elapsed());
    assert_eq!(ran.stdout, "web-1: switched to revision 1\n", "{broken:?}: {code:?} {}", ran.stderr);
    assert!(took < Duration::from_secs(100), "{broken:?}: {took:?}");
}

#[test]
fn a_cache_that_answers_with_errors_does_not_hide_the_next_one() {
    for answer in [ERROR_500, ERROR_502, HTML, LOOP] {
        is_fetched_from_the_next_cache(Broken::Answers(answer));
        is_fetched_from_the_next_cache(Broken::OnlyIsACache(answer));
    }
}

#[test]
fn a_cache_that_hangs_is_given_up_in_seconds() {
    is_fetched_from_the_next_cache(Broken::Hangs);
    is_fetched_from_the_next_cache(Broken::HangsLater);
}

#[test]
fn a_cache_that_drips_is_given_up_in_seconds() {
    is_fetched_from_the_next_cache(Broken::Drips);
}

#[test]
fn a_cache_that_was_used_once_and_is_off_does_not_hide_the_next_one() {
    let world = World::new();
    let first = crate::support::http::HttpServer::serve_files(&world.path("cache"));
    let (cache, key) = (world.at("cache"), world.public_key("cache-1"));
    let url = first.url();
    let caches =
        format!("{{ substituters = [ \"{url}\" \"file://{cache}\" ]; substituters-public-keys = [ \"{key}\" ]; }}\n");
    world.write("caches.nix", &caches);
    world.push("Two caches");
    world.publish_with_nix(&["web-1"]);
    world.configure_agent("web-1", &format!("file://{}", world.at("fleet.git")), "");
    world.agent("web-1", &["once"]).good();
    assert!(first.requests().iter().any(|request| request.contains(".narinfo")), "the first cache was asked");
    drop(first);
    world.change_with_nix("Welcome", "Hello");
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 2\n");
}
