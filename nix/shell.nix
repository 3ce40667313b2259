# A shell with everything that you need to build and test Clavel.
{
  mkShell,
  clavel,
  cargo,
  cargo-deny,
  clippy,
  fcgiwrap,
  git,
  lib,
  libfaketime,
  nginx,
  nix,
  openssh,
  openssl,
  python3,
  rustc,
  rustfmt,
  shellcheck,
  stdenv,
  strace,
  systemd,
  bubblewrap,
  util-linux,
}:

mkShell {
  inputsFrom = [ clavel ];
  packages = [
    cargo
    cargo-deny
    clippy
    git
    nix
    nginx
    openssh
    openssl
    (python3.withPackages (packages: [ packages.cryptography ]))
    rustc
    rustfmt
    shellcheck
  ]
  ++ lib.optionals stdenv.hostPlatform.isLinux [
    fcgiwrap
    libfaketime
    strace
    systemd
    bubblewrap
    util-linux
  ];
}
