# What building and testing Clavel needs.
{
  mkShell,
  clavel,
  cargo,
  cargo-deny,
  clippy,
  fcgiwrap,
  lib,
  nginx,
  nix,
  rustc,
  rustfmt,
  shellcheck,
  stdenv,
  strace,
}:

mkShell {
  inputsFrom = [ clavel ];
  packages = [
    cargo
    cargo-deny
    clippy
    nix
    nginx
    rustc
    rustfmt
    shellcheck
  ]
  ++ lib.optionals stdenv.hostPlatform.isLinux [
    fcgiwrap
    strace
  ];
}
