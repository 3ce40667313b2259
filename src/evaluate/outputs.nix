# The questions of claveld about a flake. Takes the table of platforms (`platforms.rs`), then the flake. An item is a list
# of strings: the kind, and the names that lead to it below the output of that kind.
#   names KINDS  all items of these kinds that may become documents, by kind, each without its kind. No item is evaluated.
#   some ITEMS   the values of these items, each as { ok = …; }, or { failed = true; } where it throws
#   one ITEM     the value of this item. Where it throws, the evaluation fails, and Nix says why.
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

  # Nix's names of systems. The list is closed, so that the name of a host is not taken for a system.
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

  # From a derivation, or a store path as text. Evaluating drvPath writes the .drv file and builds nothing.
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
  names = asked: {
    kinds = listToAttrs (
      map (kind: {
        name = kind;
        value = paths (getAttr kind kinds);
      }) asked
    );
    others = attrNames (removeAttrs clavel [ "deployments" "units" "agents" "withdraw" ]);
    withdraw = clavel.withdraw or [ ];
  };
  some = map (item: guarded (one item));
  inherit one;
}
