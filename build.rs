//! Refuses to build without the machine's libcurl.
//!
//! Where pkg-config does not find libcurl, `curl-sys` compiles a copy of its own, which knows no TLS: every fetch over
//! https would fail, and only once Clavel runs.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var_os("DEP_CURL_STATIC").is_some() {
        println!(
            "cargo::error=libcurl was not found on this machine; install pkg-config and libcurl with its headers \
             (Debian: `scripts/setup build` does; Fedora: libcurl-devel; NixOS: `nix develop`), then build again"
        );
    }
}
