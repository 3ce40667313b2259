# The NixOS module of clavel-agent, the daemon that switches this machine to what its fleet publishes.
self:
{
  config,
  lib,
  pkgs,
  ...
}:

let
  cfg = config.services.clavel-agent;
  format = pkgs.formats.toml { };
  inherit (lib) mkOption types;
in
{
  options.services.clavel-agent = {
    enable = lib.mkEnableOption "the Clavel agent, which keeps this machine at what its fleet publishes for it";

    package = mkOption {
      type = types.package;
      default = self.packages.${pkgs.stdenv.hostPlatform.system}.default;
      defaultText = lib.literalMD "this flake's package";
      description = "The package that contains clavel-agent.";
    };

    checks = mkOption {
      type = types.attrsOf (types.attrsOf types.anything);
      default = { };
      example = lib.literalExpression ''
        {
          ssh.tcp = "127.0.0.1:22";
          services.systemd = [ ];
        }
      '';
      description = "What has to hold after a switch to this system, for it to stay. It is published with the deployment, as the checks of docs/flakes.md are.";
    };

    mode = mkOption {
      type = types.nullOr (
        types.enum [
          "switch"
          "boot"
        ]
      );
      default = null;
      example = "boot";
      description = "How a machine is brought to this system: at once, or at its next boot. It is published with the deployment, as docs/flakes.md has it.";
    };

    probation = mkOption {
      type = types.attrsOf types.str;
      default = { };
      example = {
        settle = "1m";
        confirm = "manual";
      };
      description = "When a switch to this system is confirmed, and by whom: `settle`, `deadline` and `confirm`, as docs/flakes.md has them.";
    };

    settings = mkOption {
      description = "clavel-agent.toml, as examples/clavel-agent.toml describes it.";
      default = { };
      type = types.submodule {
        freeformType = format.type;
        options = {
          name = mkOption {
            type = types.str;
            default = config.networking.hostName;
            defaultText = lib.literalExpression "config.networking.hostName";
            description = "The agent's name on the branch.";
          };
          repository = mkOption {
            type = types.str;
            example = "https://git.example.org/fleet.git";
            description = "The git repository that carries the deployments, or a git bundle: a path, or a pattern, that ends in .bundle.";
          };
          mirrors = mkOption {
            type = types.listOf types.str;
            default = [ ];
            example = [ "https://mirror.example.net/fleet.git" ];
            description = "Other repositories that carry the same branch. The newest index that verifies counts.";
          };
          branch = mkOption {
            type = types.str;
            default = "deployments";
            description = "The branch.";
          };
          hooks = mkOption {
            type = types.attrsOf (types.listOf types.str);
            default = { };
            example = lib.literalExpression ''
              {
                failure = [ "''${pkgs.mailutils}/bin/mail" "-s" "clavel failed" "ops@example.org" ];
              }
            '';
            description = "The programs that are called `before` and `after` each activation and after its `failure`, with their arguments. The service's PATH has little, so name a program by its path.";
          };
          root = mkOption {
            type = types.either types.path types.str;
            example = lib.literalExpression "./root.json";
            description = "The root to start from: a file with any of the fleet's roots, or the digest of the first.";
          };
        };
      };
    };
  };

  config = lib.mkIf cfg.enable {
    environment.systemPackages = [ cfg.package ];
    # `clavel-agent status` reads this file as well.
    environment.etc."clavel/clavel-agent.toml".source = format.generate "clavel-agent.toml" (
      { state-directory = "/var/lib/clavel-agent"; } // cfg.settings
    );

    systemd.services.clavel-agent = {
      description = "Fetches, verifies and switches to what this machine should run";
      wantedBy = [ "multi-user.target" ];
      wants = [ "network-online.target" ];
      after = [
        "network-online.target"
        "nix-daemon.socket"
      ];
      # A switch goes on in a unit of its own when it restarts this service, and the new agent looks whether the new system stays.
      stopIfChanged = false;
      path = [
        config.nix.package
        # For runuser, which activates the homes of users.
        pkgs.util-linux
      ];
      environment = {
        HOME = "/root";
        XDG_CACHE_HOME = "/var/cache/clavel-agent";
      };
      # The same settings as in systemd/clavel-agent.service, which gives the reasons.
      serviceConfig = {
        Type = "notify";
        WatchdogSec = "5min";
        ExecStart = "${cfg.package}/bin/clavel-agent run";
        ExecReload = "${pkgs.coreutils}/bin/kill -HUP $MAINPID";
        Restart = "always";
        RestartSec = "10s";
        StateDirectory = "clavel-agent";
        StateDirectoryMode = "0700";
        CacheDirectory = "clavel-agent";
        KillMode = "process";
        RestrictRealtime = true;
        KeyringMode = "private";
        UMask = "0022";
        OOMScoreAdjust = -500;
      };
    };

    # The same settings as in systemd/clavel-way-back.service, which gives the reasons.
    systemd.services.clavel-way-back = {
      description = "Goes back from a switch that nothing confirms after this start of the machine";
      wantedBy = [ "sysinit.target" ];
      after = [ "local-fs.target" ];
      before = [ "shutdown.target" ];
      conflicts = [ "shutdown.target" ];
      restartIfChanged = false;
      unitConfig = {
        ConditionPathExistsGlob = "/var/lib/clavel-agent/way-back/*/armed";
        DefaultDependencies = false;
        RequiresMountsFor = "/var/lib/clavel-agent /nix/store";
        IgnoreOnIsolate = true;
      };
      serviceConfig.KillMode = "process";
      script = ''
        for script in /var/lib/clavel-agent/way-back/*/script; do
          /bin/sh "$script" boot &
        done
        wait
      '';
    };
  };
}
