# What Claveld asks of a flake. Evaluates to functions of the flake's outputs:
#   names        the names of everything that could become a document, without looking at any of it
#   some ITEMS   some of them, each [ KIND NAME ], guarded: { ok = …; } or { failed = true; } where it throws
#   one KIND N   one of them, unguarded, so that Nix says what is wrong with it
#   jobs ITEMS   some of them as nix-eval-jobs takes them, by their place in the list: those that have a derivation
flake:
let
  inherit (builtins)
    attrNames
    deepSeq
    elemAt
    genList
    getAttr
    isAttrs
    length
    listToAttrs
    mapAttrs
    removeAttrs
    toJSON
    tryEval
    ;

  outputs = flake.outputs or flake;
  clavel = outputs.clavel or { };

  kinds = {
    nixosConfigurations = {
      found = outputs.nixosConfigurations or { };
      read =
        host:
        let
          inherit (host.config.system.build) toplevel;
          settings = host.config.nix.settings or { };
        in
        {
          nar = nar toplevel;
          substituters = settings.substituters or [ ];
          substituters-public-keys = settings.trusted-public-keys or [ ];
        };
    };
    deployments = {
      found = clavel.deployments or { };
      read =
        deployment:
        deployment
        // (
          if deployment ? template.narId then
            { template = deployment.template // { narId = nar deployment.template.narId; }; }
          else
            { }
        );
    };
    units = {
      found = clavel.units or { };
      read = unit: unit;
    };
    agents = {
      found = clavel.agents or { };
      read = agent: agent;
    };
  };

  # A derivation's output, or a store path as text. Asking for drvPath writes the .drv and builds nothing.
  nar =
    value:
    if isAttrs value then
      {
        path = value.outPath;
        drv = value.drvPath or null;
        system = value.system or null;
      }
    else
      {
        path = "${value}";
        drv = null;
        system = null;
      };

  guarded =
    value:
    let
      result = tryEval (deepSeq value value);
    in
    if result.success then { ok = result.value; } else { failed = true; };

  # What a derivation looks like, as far as nix-eval-jobs looks at it; the answer is among what it prints.
  job =
    answer:
    let
      nar = answer.nar or (answer.template.narId or { });
    in
    if nar.drv or null == null then
      { }
    else
      {
        type = "derivation";
        name = "clavel";
        inherit (nar) system;
        drvPath = nar.drv;
        outPath = nar.path;
        outputName = "out";
        meta.clavel = toJSON answer;
      };

  one = kind: name: (getAttr kind kinds).read (getAttr name (getAttr kind kinds).found);
in
{
  names = {
    kinds = mapAttrs (_: kind: attrNames kind.found) kinds;
    others = attrNames (removeAttrs clavel [ "deployments" "units" "agents" ]);
  };
  some = map (item: guarded (one (elemAt item 0) (elemAt item 1)));
  jobs =
    items:
    listToAttrs (
      genList (place: {
        name = toString place;
        value = job (one (elemAt (elemAt items place) 0) (elemAt (elemAt items place) 1));
      }) (length items)
    );
  inherit one;
}
