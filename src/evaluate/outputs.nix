# The questions of claveld about a flake. Takes the table of platforms (`platforms.rs`), then the flake. An item is a list
# of strings: the kind, and the names that lead to it below the output of that kind.
#   names KINDS  all items of these kinds that may become documents, by kind, each without its kind. No item is evaluated.
#   some ITEMS   the values of these items, each as { ok = …; }, or { failed = true; } where it throws
#   one ITEM     the value of this item. Where it throws, the evaluation fails, and Nix says why.
platforms: flake:
let
  inherit (builtins)
    addErrorContext
    attrNames
    concatMap
    deepSeq
    filter
    foldl'
    getAttr
    hasAttr
    head
    isAttrs
    isString
    listToAttrs
    mapAttrs
    match
    removeAttrs
    replaceStrings
    seq
    tail
    toJSON
    tryEval
    typeOf
    unsafeGetAttrPos
    ;

  outputs = flake.outputs or flake;
  clavel = setAt "clavel" (outputs.clavel or { });

  # A place in the flake:
  #   place  its attributes, in the user's words
  #   item   those of the item that it belongs to
  #   value  what is there
  #   from   the set that has it under `name`, for its position
  at = place: value: {
    inherit place value;
    item = place;
    from = null;
    name = place;
  };

  # Where a place was written, on a line of its own, as Nix writes positions. Empty where Nix does not know.
  positionOf =
    at:
    let
      position = if isAttrs at.from then unsafeGetAttrPos at.name at.from else null;
    in
    if position == null then
      ""
    else
      "\n  at ${position.file}:${toString position.line}:${toString position.column}";

  # Ends the evaluation, because the value there is not what is wanted.
  misshapen =
    at: wanted:
    let
      words = {
        bool = "a boolean";
        float = "a number";
        int = "a number";
        lambda = "a function";
        list = "a list";
        path = "a path";
        set = "a set";
        string = "a string";
      };
      is = typeOf at.value;
    in
    refuse at "is ${words.${is} or is}" wanted;

  refuse =
    at: why: wanted:
    let
      it = if at.place == at.item then "it" else "`${at.item}`";
    in
    throw "`${at.place}` ${why}; ${it} has to be ${wanted}${positionOf at}";

  quoted =
    name:
    if match "[a-zA-Z_][a-zA-Z0-9_'-]*" name != null then
      name
    else
      replaceStrings [ "\${" ] [ "\\\${" ] (toJSON name);

  # The attribute `name` of a place that has to be `wanted`.
  below =
    wanted: at: name:
    if !isAttrs at.value then
      misshapen at wanted
    else if hasAttr name at.value then
      {
        place = "${at.place}.${quoted name}";
        inherit (at) item;
        inherit name;
        from = at.value;
        value = getAttr name at.value;
      }
    else
      refuse at "has no `${quoted name}`" wanted;

  # The same place, as an item of its own: an error says what it has to be, and not what the whole has to be.
  itself = at: at // { item = at.place; };

  setOf = wanted: at: if isAttrs at.value then at.value else misshapen at wanted;
  setAt = place: value: setOf "a set" (at place value);

  hasPath =
    value: path:
    path == [ ] || isAttrs value && hasAttr (head path) value && hasPath (getAttr (head path) value) (tail path);

  kinds = mapAttrs hosts platforms // {
    deployments = {
      place = "clavel.deployments";
      found = clavel.deployments or { };
      read =
        at:
        let
          deployment = setOf "a set, such as { template.narId = …; }" at;
          ofDeployment = name: at: itself (below "a set" at name);
          template = ofDeployment "template" at;
        in
        deployment
        // (
          if deployment ? template && setOf "a set" template ? narId then
            { template = template.value // { narId = nar null (ofDeployment "narId" template); }; }
          else
            { }
        );
    };
    units = {
      place = "clavel.units";
      found = clavel.units or { };
      read = setOf "a set, such as { type = …; arch = …; }";
    };
    agents = {
      place = "clavel.agents";
      found = clavel.agents or { };
      read = setOf "a set, such as { deployments = [ … ]; }";
    };
  };

  hosts = output: platform: {
    place = output;
    found = outputs.${output} or { };
    isLevel = if platform.bySystem then isSystem else _: false;
    read =
      at:
      let
        host = at.value;
        known = filter (hasPath host) platform.toplevels;
        path = head (known ++ platform.toplevels);
        toplevel = foldl' (below platform.host) at path;
        settings = platform.nixSettings host;
      in
      {
        nar = nar (hostSystem host) (itself toplevel);
        substituters = settings.substituters or [ ];
        substituters-public-keys = settings.trusted-public-keys or [ ];
      };
  };

  # The system that a host is for, where it says so. `pkgs` decides what `nixpkgs.hostPlatform` means, where both are set.
  hostSystem =
    host:
    let
      ofPkgs = text (host.pkgs.stdenv.hostPlatform.system or null);
      ofConfig = text (host.config.nixpkgs.hostPlatform.system or null);
    in
    if !isAttrs host then
      null
    else if ofPkgs != null then
      ofPkgs
    else
      ofConfig;

  # A string; null where it is something else, or throws, as an option without a definition does.
  text =
    value:
    let
      result = tryEval (if isString value then value else null);
    in
    if result.success then result.value else null;

  # Nix's names of systems. The list is closed, so that the name of a host is not taken for a system.
  isSystem =
    name:
    match "(aarch64|armv[5-8][a-z]*|i[3-6]86|loongarch64|mips[a-z0-9]*|powerpc64(le)?|riscv(32|64)|s390x|x86_64)-(linux|darwin|freebsd|netbsd|openbsd)" name
    != null;

  paths =
    kind:
    let
      all = at kind.place kind.found;
      ofName =
        name:
        if (kind.isLevel or (_: false)) name then
          map (inner: [
            name
            inner
          ]) (attrNames (setOf "a set of hosts" (itself (below "a set" all name))))
        else
          [ [ name ] ];
    in
    concatMap ofName (attrNames (setOf "a set, with an attribute for each name" all));

  # From a derivation, or a store path as text. Evaluating drvPath writes the .drv file and builds nothing. `system` of a
  # derivation is where it is built, so a cross-compiled one says elsewhere what it is for.
  nar =
    system: at:
    let
      value = at.value;
      ofStdenv = text (value.stdenv.hostPlatform.system or null);
    in
    if isAttrs value && value ? outPath then
      {
        path = value.outPath;
        drv = value.drvPath or null;
        system =
          if system != null then
            system
          else if ofStdenv != null then
            ofStdenv
          else
            value.system or null;
      }
    else if isString value || typeOf value == "path" then
      {
        path = "${value}";
        drv = null;
        inherit system;
      }
    else
      misshapen at "a derivation";

  guarded =
    value:
    let
      result = tryEval (deepSeq value value);
    in
    if result.success then { ok = result.value; } else { failed = true; };

  place =
    item:
    let
      kind = getAttr (head item) kinds;
    in
    itself (foldl' (below "a set") (at kind.place kind.found) (tail item));

  one = item: (getAttr (head item) kinds).read (place item);

  # The same, and an error says which attribute it is in, where Nix knows no place closer to it.
  located =
    item:
    let
      value = one item;
      it = place item;
    in
    addErrorContext "while evaluating ${it.place}${positionOf it}" (seq (toJSON value) value);
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
  one = located;
}
