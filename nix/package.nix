# The three programs.
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
    # What the build reads; a change to anything else builds nothing.
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

  # The tests run nix, nginx and sshd, and the build's sandbox has none of them: `make test` is where they run.
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
    # Nix is the machine's own: its version has to fit the store.
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
