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
  ++ lib.optional stdenv.hostPlatform.isLinux fcgiwrap;
}
