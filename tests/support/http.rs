//! Runs nginx, for plain files and for git's smart HTTP.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::server::Server;
use super::{find_program, hermetic_git, program, run};

const CERTIFICATE: &str = "certificate.pem";
const SECRET_KEY: &str = "certificate.key";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
}

/// Where a server is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Host {
    /// The address that it listens on.
    pub(crate) address: Ipv4Addr,
    /// Its name in its certificate, beside its address.
    pub(crate) name: Option<&'static str>,
}

impl Host {
    const LOOPBACK: Self = Self { address: Ipv4Addr::LOCALHOST, name: None };
}

/// nginx, serving one directory.
#[derive(Debug)]
pub(crate) struct HttpServer {
    host: Host,
    port: u16,
    scheme: Scheme,
    // Fields are dropped in this order: nginx before what it talks to, and both before their files.
    _nginx: Server,
    _fcgiwrap: Option<Server>,
    files: TempDir,
}

/// One request with its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Transfer {
    pub(crate) path: String,
    pub(crate) status: String,
    /// The bytes in both directions, with headers.
    pub(crate) bytes: u64,
    pub(crate) connection: u64,
    pub(crate) is_conditional: bool,
}

impl HttpServer {
    /// Serves the files below `directory`, with `more` in nginx's configuration of the server.
    pub(crate) fn serve_files_with(directory: &Path, more: &str) -> Self {
        let location = format!("location / {{ root \"{}\"; }} {more}", directory.display());
        Self::start(TempDir::new().unwrap(), None, Scheme::Http, &location)
    }

    /// Serves the files below `directory` over HTTPS, to `user` with `password` alone.
    pub(crate) fn serve_private_files(directory: &Path, user: &str, password: &str) -> Self {
        let files = TempDir::new().unwrap();
        fs::write(files.path().join("users"), format!("{user}:{{PLAIN}}{password}\n")).unwrap();
        let location = format!(
            "location / {{ root \"{}\"; auth_basic fleet; auth_basic_user_file \"{}\"; }}",
            directory.display(),
            files.path().join("users").display()
        );
        Self::start(files, None, Scheme::Https, &location)
    }

    /// Serves the files below `directory`, as the host of a binary cache does.
    pub(crate) fn serve_files(directory: &Path) -> Self {
        let files = TempDir::new().unwrap();
        let location = format!("location / {{ root \"{}\"; }}", directory.display());
        Self::start(files, None, Scheme::Http, &location)
    }

    /// Serves the git repositories below `directory`, to be read only, as a git host does.
    pub(crate) fn serve_git(directory: &Path) -> Self {
        Self::serve_git_to(Scheme::Http, directory, TempDir::new().unwrap(), "", "")
    }

    /// The same over HTTPS. The server's certificate is for 127.0.0.1, and signed by itself.
    pub(crate) fn serve_git_over_https(directory: &Path) -> Self {
        Self::serve_git_on(Host::LOOPBACK, directory)
    }

    /// The same, for `user` with `password` alone, who may also push.
    pub(crate) fn serve_private_git(directory: &Path, user: &str, password: &str) -> Self {
        let files = TempDir::new().unwrap();
        fs::write(files.path().join("users"), format!("{user}:{{PLAIN}}{password}\n")).unwrap();
        let only = format!("auth_basic fleet; auth_basic_user_file \"{}\";", files.path().join("users").display());
        Self::serve_git_to(Scheme::Https, directory, files, &only, "")
    }

    /// Serves the git repositories below `directory`, and its files below `/files/`, over HTTPS, with `more` in nginx's configuration of the
    /// server.
    pub(crate) fn serve_git_with(directory: &Path, more: &str) -> Self {
        let more = format!("location /files/ {{ alias \"{}/\"; }} {more}", directory.display());
        Self::serve_git_to(Scheme::Https, directory, TempDir::new().unwrap(), "", &more)
    }

    /// Serves the git repositories below `directory` over HTTPS, on a host of which this thread is.
    pub(crate) fn serve_git_on(host: Host, directory: &Path) -> Self {
        Self::serve_git_at(host, Scheme::Https, directory, TempDir::new().unwrap(), "", "")
    }

    fn serve_git_to(scheme: Scheme, directory: &Path, files: TempDir, only: &str, more: &str) -> Self {
        Self::serve_git_at(Host::LOOPBACK, scheme, directory, files, only, more)
    }

    fn serve_git_at(host: Host, scheme: Scheme, directory: &Path, files: TempDir, only: &str, more: &str) -> Self {
        let socket = files.path().join("fcgi");
        let mut fcgiwrap = program(find_program("fcgiwrap"));
        fcgiwrap.arg("-s").arg(format!("unix:{}", socket.display()));
        // The number of requests that are answered at the same time.
        fcgiwrap.args(["-c", "4"]);
        hermetic_git(&mut fcgiwrap, files.path());
        let answers = || UnixStream::connect(&socket).is_ok();
        let log = files.path().join("fcgiwrap.log");
        let fcgiwrap = Server::start(&mut fcgiwrap, &log, answers).unwrap_or_else(|log| panic!("{log}"));
        let location = format!(
            "set $asked_protocol $http_git_protocol;
            {more}
            location / {{
                {only}
                fastcgi_param REMOTE_USER $remote_user if_not_empty;
                fastcgi_pass \"unix:{socket}\";
                fastcgi_param SCRIPT_FILENAME \"{backend}\";
                fastcgi_param GIT_PROJECT_ROOT \"{root}\";
                fastcgi_param GIT_HTTP_EXPORT_ALL 1;
                fastcgi_param PATH_INFO $uri;
                fastcgi_param QUERY_STRING $query_string;
                fastcgi_param REQUEST_METHOD $request_method;
                fastcgi_param CONTENT_TYPE $content_type;
                fastcgi_param CONTENT_LENGTH $content_length;
                fastcgi_param HTTP_GIT_PROTOCOL $asked_protocol if_not_empty;
            }}",
            socket = socket.display(),
            backend = git_http_backend().display(),
            root = directory.display(),
        );
        Self::start_at(host, files, Some(fcgiwrap), scheme, &location)
    }

    fn start(files: TempDir, fcgiwrap: Option<Server>, scheme: Scheme, location: &str) -> Self {
        Self::start_at(Host::LOOPBACK, files, fcgiwrap, scheme, location)
    }

    fn start_at(host: Host, files: TempDir, fcgiwrap: Option<Server>, scheme: Scheme, location: &str) -> Self {
        if scheme == Scheme::Https {
            make_certificate(files.path(), host);
        }
        let nginx = find_program("nginx");
        let log = files.path().join("error.log");
        let (server, port) = Server::on_free_port_of(
            host.address,
            |port| {
                let configuration = files.path().join("nginx.conf");
                fs::write(&configuration, nginx_conf(files.path(), (host.address, port), scheme, location)).unwrap();
                let mut nginx = program(&nginx);
                // -e: until the configuration is read, errors would go to the system's own log.
                nginx.arg("-e").arg(&log).arg("-p").arg(files.path()).arg("-c").arg(configuration);
                nginx
            },
            &log,
        );
        Self { host, port, scheme, _nginx: server, _fcgiwrap: fcgiwrap, files }
    }

    /// The URL of the directory: `http://127.0.0.1:PORT`, or `https://…`, without a slash at the end.
    pub(crate) fn url(&self) -> String {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        format!("{scheme}://{}:{}", self.host.address, self.port)
    }

    /// The file with the certificate of a server that speaks HTTPS.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.files.path().join(CERTIFICATE)
    }

    /// Answers everything with this status, over HTTPS.
    pub(crate) fn answering(status: u16) -> Self {
        Self::start(TempDir::new().unwrap(), None, Scheme::Https, &format!("location / {{ return {status}; }}"))
    }

    /// Answers everything with this status, over HTTP.
    pub(crate) fn answering_plainly(status: u16) -> Self {
        Self::start(TempDir::new().unwrap(), None, Scheme::Http, &format!("location / {{ return {status}; }}"))
    }

    /// Answers everything with this status and this header `Retry-After`, over HTTPS.
    pub(crate) fn answering_later(status: u16, value: &str) -> Self {
        let location = format!("location / {{ add_header Retry-After \"{value}\" always; return {status}; }}");
        Self::start(TempDir::new().unwrap(), None, Scheme::Https, &location)
    }

    /// The transfers so far, oldest first.
    pub(crate) fn transfers(&self) -> Vec<Transfer> {
        self.requests();
        let log = fs::read_to_string(self.files.path().join("transfers.log")).unwrap();
        let transfer = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            let number = |at: usize| words[at].parse::<u64>().unwrap();
            Transfer {
                path: words[0].to_owned(),
                status: words[1].to_owned(),
                bytes: number(2) + number(3),
                connection: number(4),
                is_conditional: words[5..].join(" ") != "---",
            }
        };
        log.lines().map(transfer).collect()
    }

    /// How often somebody asked it for something so far.
    pub(crate) fn asked(&self) -> usize {
        self.requests().iter().filter(|request| !request.contains("/.all-logged")).count()
    }

    /// The requests so far, oldest first, as `METHOD /path?query STATUS`.
    pub(crate) fn requests(&self) -> Vec<String> {
        // nginx logs a request after its answer, so the last one may not be logged yet. It handles one request at a time: once
        // it answers a request from here, it has logged all earlier ones.
        let mut connection = TcpStream::connect((self.host.address, self.port)).unwrap();
        connection.write_all(b"GET /.all-logged HTTP/1.0\r\n\r\n").unwrap();
        connection.read_to_end(&mut Vec::new()).unwrap();
        let log = fs::read_to_string(self.files.path().join("access.log")).unwrap();
        log.lines().map(str::to_owned).collect()
    }
}

/// A certificate for a host, signed by itself, and its secret key.
fn make_certificate(folder: &Path, Host { address, name }: Host) {
    let mut openssl = program("openssl");
    openssl.args(["req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    openssl.args(["-days", "2", "-subj", "/CN=clavel-test"]);
    let name = name.map(|name| format!(",DNS:{name}")).unwrap_or_default();
    openssl.args(["-addext", &format!("subjectAltName=IP:{address}{name}")]);
    openssl.arg("-out").arg(folder.join(CERTIFICATE)).arg("-keyout").arg(folder.join(SECRET_KEY));
    run(&mut openssl);
}

fn nginx_conf(files: &Path, (address, port): (Ipv4Addr, u16), scheme: Scheme, location: &str) -> String {
    let files = files.display();
    let (ssl, tls) = match scheme {
        Scheme::Http => ("", String::new()),
        Scheme::Https => (
            " ssl",
            format!("ssl_certificate \"{files}/{CERTIFICATE}\"; ssl_certificate_key \"{files}/{SECRET_KEY}\";"),
        ),
    };
    // One process in the foreground: no worker to outlive it, no other user to be kept out of the test's directories.
    format!(
        "daemon off;
        master_process off;
        pid \"{files}/nginx.pid\";
        error_log \"{files}/error.log\";
        events {{ worker_connections 512; }}
        http {{
            log_format asked '$request_method $request_uri $status';
            access_log \"{files}/access.log\" asked;
            log_format measured '$uri $status $request_length $bytes_sent $connection ${{http_if_none_match}}-${{http_if_modified_since}}';
            access_log \"{files}/transfers.log\" measured;
            client_body_temp_path \"{files}/body\";
            fastcgi_temp_path \"{files}/fastcgi\";
            proxy_temp_path \"{files}/proxy\";
            scgi_temp_path \"{files}/scgi\";
            uwsgi_temp_path \"{files}/uwsgi\";
            client_max_body_size 0;
            server {{
                listen {address}:{port}{ssl};
                {tls}
                location = /.all-logged {{ access_log off; return 204; }}
                {location}
            }}
        }}
        "
    )
}

/// git's own CGI program. A git that was built by hand may lack it where the distribution's has it.
fn git_http_backend() -> PathBuf {
    let own = PathBuf::from(run(program("git").arg("--exec-path")).trim_end());
    [own, PathBuf::from("/usr/lib/git-core")]
        .map(|directory| directory.join("git-http-backend"))
        .into_iter()
        .find(|file| file.is_file())
        .expect("git-http-backend is missing: `scripts/setup test` installs it")
}
