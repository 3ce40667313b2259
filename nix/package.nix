# The package with the three programs, the hooks, the man pages and the completions.
{
  lib,
  rustPlatform,
  makeWrapper,
  pkg-config,
  openssl,
  git,
  openssh,
}:

let
  manifest = (lib.importTOML ../Cargo.toml).package;
in
rustPlatform.buildRustPackage {
  pname = manifest.name;
  inherit (manifest) version;

  src = lib.fileset.toSource {
    root = ../.;
    # Only the files that the build reads, so that a change to another file causes no new build.
    fileset = lib.fileset.unions [
      ../Cargo.toml
      ../Cargo.lock
      ../src
      ../benches
      ../examples
      ../hooks
      ../tests
      (lib.fileset.maybeMissing ../share)
    ];
  };

  cargoLock.lockFile = ../Cargo.lock;
  cargoBuildFlags = [ "--bins" ];

  nativeBuildInputs = [
    makeWrapper
    pkg-config
  ];
  buildInputs = [ openssl ];

  # The tests run nix, nginx and sshd, which the sandbox of a build does not have. `make test` runs them.
  doCheck = false;

  postInstall = ''
    install -D -m 755 -t "$out/share/clavel/hooks" hooks/*
    if test -d share; then cp -r share "$out/share"; fi
    if test -d "$out/share/man"; then
      find "$out/share/man" -maxdepth 1 -type f -name '*.[1-8]' | while read -r page; do
        install -D -m 644 "$page" "$out/share/man/man''${page##*.}/''${page##*/}"
        rm "$page"
      done
    fi
    # Nix is not added: the programs use the machine's own, because its version has to match the store.
    for program in "$out"/bin/*; do
      wrapProgram "$program" --suffix PATH : ${
        lib.makeBinPath [
          git
          openssh
        ]
      }
    done
  '';

  meta = {
    inherit (manifest) description;
    license = [
      lib.licenses.mit
      lib.licenses.asl20
    ];
    mainProgram = "clavel";
    platforms = lib.platforms.unix;
  };
}
