//! Promise: an input is fetched from a public address, or from a host that the configuration names, wherever its server redirects.

use serde_json::json;

use crate::support::world::{Ran, World};

/// The address of a server that everybody may ask. It exists in a network of the test's own alone.
const PUBLIC: &str = "11.22.33.44";

/// A flake with one input per name, and a network in which it can be fetched.
struct Network(World);

impl Network {
    fn new() -> Self {
        let world = World::new();
        for name in ["public", "internal"] {
            world.write_file(&format!("{name}/tree/text"), &format!("text of the {name} server of {}", world.at("")));
            let (folder, file) = (world.at(name), world.at(&format!("{name}/tree.tar.gz")));
            world.run("tar", &["-C", &folder, "-czf", &file, "tree"]).good();
        }
        let names = format!("subjectAltName=IP:{PUBLIC},IP:127.0.0.1");
        let (certificate, key) = (world.at("certificate.pem"), world.at("certificate.key"));
        let new = ["req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-days", "2"];
        let of = ["-subj", "/CN=clavel-test", "-addext", &names, "-out", &certificate, "-keyout", &key];
        world.run("openssl", &[&new[..], &of].concat()).good();
        let folder = world.at("");
        world.write_file(
            "nginx.conf",
            &format!(
                "user root; daemon on; pid {folder}nginx.pid; error_log {folder}nginx.log;
                events {{ }}
                http {{
                    access_log off; client_body_temp_path {folder}body; proxy_temp_path {folder}proxy;
                    fastcgi_temp_path {folder}fastcgi; uwsgi_temp_path {folder}uwsgi; scgi_temp_path {folder}scgi;
                    ssl_certificate {certificate}; ssl_certificate_key {key};
                    server {{
                        listen {PUBLIC}:443 ssl; root {folder}public;
                        location /with-tls {{ return 302 https://127.0.0.1:8443/tree.tar.gz; }}
                        location /without-tls {{ return 302 http://127.0.0.1:8080/tree.tar.gz; }}
                    }}
                    server {{
                        listen 127.0.0.1:8443 ssl; listen 127.0.0.1:8080; root {folder}internal;
                        access_log {folder}internal.log;
                    }}
                }}"
            ),
        );
        Self(world)
    }

    /// Evaluates a flake that uses the input at `url`, whose tree is that of the server `from`.
    fn evaluate(&self, url: &str, from: &str, more: &[&str]) -> Ran {
        let Self(world) = self;
        let hash = world.run("nix", &["hash", "path", &world.at(&format!("{from}/tree"))]).good();
        let tarball = json!({ "type": "tarball", "url": url });
        let mut locked = tarball.clone();
        locked["narHash"] = hash.trim().into();
        let x = json!({ "flake": false, "original": tarball, "locked": locked });
        let lock = json!({ "root": "root", "version": 7, "nodes": { "root": { "inputs": { "x": "x" } }, "x": x } });
        world.write("flake.lock", &lock.to_string());
        let inputs = format!("inputs.x = {{ url = \"{url}\"; flake = false; }};");
        let host = "nixosConfigurations.web-1 = throw \"got ${builtins.readFile (x + \"/text\")}\";";
        world.write("flake.nix", &format!("{{ {inputs} outputs = {{ self, x }}: {{ {host} }}; }}"));
        let script = format!(
            "set -eu; ip link set lo up; ip address add {PUBLIC}/32 dev lo; nginx -c {nginx}
            trap 'kill $(cat {folder}nginx.pid)' EXIT
            NIX_SSL_CERT_FILE={certificate} '{claveld}' evaluate 'path:{work}' {more}",
            nginx = world.at("nginx.conf"),
            folder = world.at(""),
            certificate = world.at("certificate.pem"),
            claveld = env!("CARGO_BIN_EXE_claveld"),
            work = world.at("work"),
            more = more.join(" "),
        );
        world.run("unshare", &["--net", "bash", "-c", &script])
    }

    /// The requests that reached the server of the internal network.
    fn asked(&self) -> String {
        std::fs::read_to_string(self.0.path("internal.log")).unwrap_or_default()
    }
}

#[test]
fn a_server_that_redirects_to_this_machine_leads_nowhere() {
    let network = Network::new();
    let public = network.evaluate(&format!("https://{PUBLIC}/tree.tar.gz"), "public", &[]);
    assert!(public.stderr.contains("got text of the public server"), "{}", public.stderr);
    for (path, why) in [
        ("with-tls", "its server leads elsewhere: its host 127.0.0.1 has the address 127.0.0.1, which is not public"),
        ("without-tls", "its server leads elsewhere: it would come from http://127.0.0.1"),
    ] {
        let ran = network.evaluate(&format!("https://{PUBLIC}/{path}/tree.tar.gz"), "internal", &[]);
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert!(said.contains(why) && !said.contains("text of the internal"), "{path}: {said}");
        assert_eq!(network.asked(), "", "{path}");
    }
}

#[test]
fn a_server_may_redirect_to_a_host_that_the_configuration_names() {
    let network = Network::new();
    let named = ["--input", "https", "--input", "https://127.0.0.1"];
    let ran = network.evaluate(&format!("https://{PUBLIC}/with-tls/tree.tar.gz"), "internal", &named);
    assert!(ran.stderr.contains("got text of the internal server"), "{}", ran.stderr);
    assert!(network.asked().contains("GET /tree.tar.gz"), "{}", network.asked());
}
