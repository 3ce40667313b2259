{
  description = "Clavel: evaluate once, publish signed documents on a git branch, let every machine switch by itself";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
        "x86_64-darwin"
        "aarch64-darwin"
      ];
      eachSystem = f: nixpkgs.lib.genAttrs systems (system: f nixpkgs.legacyPackages.${system});
    in
    {
      packages = eachSystem (pkgs: {
        default = pkgs.callPackage ./nix/package.nix { };
      });

      devShells = eachSystem (pkgs: {
        default = pkgs.callPackage ./nix/shell.nix {
          clavel = self.packages.${pkgs.stdenv.hostPlatform.system}.default;
        };
      });

      nixosModules = {
        claveld = import ./nix/modules/claveld.nix self;
        clavel-agent = import ./nix/modules/clavel-agent.nix self;
      };
    };
}
