# The NixOS module of claveld, the service that evaluates Sources and publishes Deployments.
self:
{
  config,
  lib,
  pkgs,
  ...
}:

let
  cfg = config.services.claveld;
  format = pkgs.formats.toml { };
  keyFile = cfg.settings.publish.secret-key-file;
  socket = "/run/claveld-signer.sock";
  # TOML has no null, so keys without a value are left out. The signer reads the key's file, and claveld asks the signer.
  publish =
    lib.filterAttrs (_: value: value != null) (removeAttrs cfg.settings.publish [ "secret-key-file" ])
    // lib.optionalAttrs (keyFile != null) { secret-key-signer = socket; };
  settings = cfg.settings // {
    inherit publish;
  };
  configuration = format.generate "claveld.toml" ({ state-directory = "/var/lib/claveld"; } // settings);
  inherit (lib) mkOption types;
in
{
  options.services.claveld = {
    enable = lib.mkEnableOption "claveld, which evaluates flakes and publishes what each machine should run";

    package = mkOption {
      type = types.package;
      default = self.packages.${pkgs.stdenv.hostPlatform.system}.default;
      defaultText = lib.literalMD "this flake's package";
      description = "The package that contains claveld.";
    };

    credentials = mkOption {
      # A string, because Nix would copy a path into the store, where everybody could read the key.
      type = types.attrsOf (types.strMatching "/.*");
      default = { };
      example = {
        claveld-1 = "/run/secrets/claveld-1";
      };
      description = "Files that systemd gives to claveld as credentials (`LoadCredential=`). They may be readable only by root.";
    };

    settings = mkOption {
      description = "claveld.toml, as examples/claveld.toml describes it.";
      default = { };
      type = types.submodule {
        freeformType = format.type;
        options = {
          publish = mkOption {
            description = "Where and how to publish.";
            type = types.submodule {
              freeformType = format.type;
              options = {
                repository = mkOption {
                  type = types.str;
                  example = "ssh://git@git.example.org/fleet.git";
                  description = "The git repository that carries the deployments.";
                };
                branch = mkOption {
                  type = types.str;
                  default = "deployments";
                  description = "The branch. Clavel makes it, and nothing else belongs on it.";
                };
                root = mkOption {
                  type = types.either types.path types.str;
                  example = lib.literalExpression "./root.json";
                  description = "The root to start from: a file with any of the fleet's roots, or the digest of the first.";
                };
                secret-key-file = mkOption {
                  # A string, because Nix would copy a path into the store, where everybody could read the key.
                  type = types.nullOr (types.strMatching "/.*");
                  default = null;
                  example = "/run/secrets/claveld-1";
                  description = ''
                    A key to sign with. Only root has to be able to read the file. `claveld signer` gets it in a service of its
                    own, and claveld asks that service for signatures: neither an evaluation nor the user claveld can read the key.
                  '';
                };
                author = mkOption {
                  type = types.nullOr (types.strMatching "[^<>]+ <[^<> ]+>");
                  default = null;
                  example = "Clavel Bot <bot@example.org>";
                  description = "The author and committer of claveld's commits. The default is the name of its key.";
                };
                secret-key-credential = mkOption {
                  type = types.nullOr types.str;
                  default = null;
                  example = "claveld-1";
                  description = "A key to sign with that claveld reads itself: the name of one of `services.claveld.credentials`.";
                };
              };
            };
          };
          source = mkOption {
            description = "The flakes whose machines claveld publishes.";
            type = types.nonEmptyListOf (
              types.submodule {
                freeformType = format.type;
                options.flake = mkOption {
                  type = types.str;
                  example = "git+https://git.example.org/fleet.git?ref=main";
                  description = "The flake.";
                };
              }
            );
          };
        };
      };
    };
  };

  config = lib.mkIf cfg.enable {
    users.users.claveld = {
      isSystemUser = true;
      group = "claveld";
      home = "/var/lib/claveld";
    };
    users.groups.claveld = { };

    environment.systemPackages = [ cfg.package ];
    # `clavel hold`, `release` and `rollback` read this file as well.
    environment.etc."clavel/claveld.toml".source = configuration;

    systemd.sockets.claveld-signer = lib.mkIf (keyFile != null) {
      description = "Where claveld asks for signatures";
      wantedBy = [ "sockets.target" ];
      listenStreams = [ socket ];
      socketConfig = {
        SocketUser = "claveld";
        SocketGroup = "claveld";
        SocketMode = "0600";
      };
    };

    # The same settings as in systemd/claveld-signer.service, which gives the reasons.
    systemd.services.claveld-signer = lib.mkIf (keyFile != null) {
      description = "Holds the key of claveld, and signs documents with it";
      requires = [ "claveld-signer.socket" ];
      after = [ "claveld-signer.socket" ];
      serviceConfig = {
        ExecStart = "${cfg.package}/bin/claveld signer --secret-key-credential key";
        LoadCredential = "key:${keyFile}";
        DynamicUser = true;
        Restart = "on-failure";
        RestartSec = "1s";
        PrivateNetwork = true;
        RestrictAddressFamilies = "AF_UNIX";
        IPAddressDeny = "any";
        ProtectSystem = "strict";
        ProtectHome = true;
        PrivateTmp = true;
        PrivateDevices = true;
        PrivateUsers = true;
        ProtectProc = "invisible";
        ProcSubset = "pid";
        ProtectClock = true;
        ProtectControlGroups = true;
        ProtectHostname = true;
        ProtectKernelLogs = true;
        ProtectKernelModules = true;
        ProtectKernelTunables = true;
        NoNewPrivileges = true;
        CapabilityBoundingSet = "";
        LockPersonality = true;
        MemoryDenyWriteExecute = true;
        RestrictNamespaces = true;
        RestrictRealtime = true;
        RestrictSUIDSGID = true;
        RemoveIPC = true;
        KeyringMode = "private";
        UMask = "0077";
        SystemCallArchitectures = "native";
        SystemCallFilter = [
          "@system-service"
          "~@privileged @resources"
        ];
        SystemCallErrorNumber = "EPERM";
        MemoryMax = "128M";
        MemorySwapMax = 0;
        TasksMax = 8;
        LimitCORE = 0;
      };
    };

    systemd.services.claveld = {
      description = "Evaluates flakes and publishes what each machine should run";
      wantedBy = [ "multi-user.target" ];
      restartTriggers = [ configuration ];
      wants = [ "network-online.target" ];
      after = [
        "network-online.target"
        "nix-daemon.socket"
        "claveld-signer.socket"
      ];
      path = [
        config.nix.package
        # Claveld uses it to see what an evaluation reads.
        pkgs.strace
        # The cage of an evaluation, and its limits.
        pkgs.bubblewrap
        pkgs.util-linux
      ];
      environment = {
        HOME = "/var/lib/claveld";
        XDG_CACHE_HOME = "/var/cache/claveld";
      };
      # The same settings as in systemd/claveld.service, which gives the reasons.
      serviceConfig = {
        ExecStart = "${cfg.package}/bin/claveld run";
        ExecReload = "${pkgs.coreutils}/bin/kill -HUP $MAINPID";
        User = "claveld";
        Group = "claveld";
        Restart = "on-failure";
        RestartSec = "10s";
        StateDirectory = "claveld";
        CacheDirectory = "claveld";
        LoadCredential = lib.mapAttrsToList (name: file: "${name}:${file}") cfg.credentials;
        Delegate = "memory pids";
        DelegateSubgroup = "claveld";
        ProtectSystem = "full";
        ProtectHome = "read-only";
        PrivateTmp = true;
        PrivateDevices = true;
        NoNewPrivileges = true;
        CapabilityBoundingSet = "";
        ProtectClock = true;
        ProtectHostname = true;
        ProtectKernelModules = true;
        LockPersonality = true;
        RestrictAddressFamilies = [
          "AF_UNIX"
          "AF_INET"
          "AF_INET6"
          "AF_NETLINK"
        ];
        RestrictRealtime = true;
        # RestrictSUIDSGID is not set: in a repository that a group shares, each folder has the setgid bit, and claveld makes folders there.
        RestrictNamespaces = "cgroup ipc mnt net pid user uts";
        SystemCallArchitectures = "native";
        LimitCORE = 0;
        OOMScoreAdjust = 500;
      };
    };
  };
}
