# What Claveld asks of a flake. Takes the table of platforms (`platforms.rs`) and evaluates to functions of the flake's
# outputs. An item is a list of strings: the kind, and the names that lead to it below the kind's output.
#   names        the items of everything that could become a document, by kind and without the kind, without looking at
#                any of it
#   some ITEMS   some of them, guarded: { ok = …; } or { failed = true; } where it throws
#   one ITEM     one of them, unguarded, so that Nix says what is wrong with it
platforms: flake:
let
  inherit (builtins)
    attrNames
    concatMap
    deepSeq
    elemAt
    foldl'
    genList
    getAttr
    head
    isAttrs
    length
    listToAttrs
    mapAttrs
    match
    removeAttrs
    tail
    toJSON
    tryEval
    ;

  outputs = flake.outputs or flake;
  clavel = outputs.clavel or { };

  kinds = mapAttrs hosts platforms // {
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

  hosts = output: platform: {
    found = outputs.${output} or { };
    isLevel = if platform.bySystem then isSystem else _: false;
    read =
      host:
      let
        settings = platform.nixSettings host;
      in
      {
        nar = nar (platform.toplevel host);
        substituters = settings.substituters or [ ];
        substituters-public-keys = settings.trusted-public-keys or [ ];
      };
  };

  # Nix's own words for the machines and the kernels that it runs on, so that no host's name passes for one by chance.
  isSystem =
    name:
    match "(aarch64|armv[5-8][a-z]*|i[3-6]86|loongarch64|mips[a-z0-9]*|powerpc64(le)?|riscv(32|64)|s390x|x86_64)-(linux|darwin|freebsd|netbsd|openbsd)" name
    != null;

  paths =
    kind:
    let
      below =
        name:
        if (kind.isLevel or (_: false)) name then
          map (inner: [
            name
            inner
          ]) (attrNames (getAttr name kind.found))
        else
          [ [ name ] ];
    in
    concatMap below (attrNames kind.found);

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

  one =
    item:
    let
      kind = getAttr (head item) kinds;
    in
    kind.read (foldl' (set: name: getAttr name set) kind.found (tail item));
in
{
  names = {
    kinds = mapAttrs (_: paths) kinds;
    others = attrNames (removeAttrs clavel [ "deployments" "units" "agents" ]);
  };
  some = map (item: guarded (one item));
  inherit one;
}
