# The questions of claveld about a flake. Takes the table of platforms (`platforms.rs`), then the flake. An item is a list
# of strings: the kind, and the names that lead to it below the output of that kind.
#   tell ASKED  tells by traces, each as soon as it is known, so that what ends the evaluation takes nothing with it that was told
#               before: the names of all items of the kinds in ASKED.kinds that may become documents, by kind, each without its
#               kind; then the values of the items in ASKED.only, or, where that is null, of all items of these kinds but those in
#               ASKED.apart. A value is { ok = …; }, or { failed = true; } where it throws. ASKED.only is a list of runs of items. A
#               run that is `together` is most likely plain data: up to ASKED.group values are told at once, and one that needs a
#               derivation by itself; it is told when the first of them begins. Of any other run, each item is told when it begins, and
#               its value when it is known. Where one of those threw, the first begins again in the end, and Nix says why it throws.
#               Where ASKED.only is null, the names of a kind come before those of the next one is asked for, and with them its values,
#               up to the first group with one that is not plain data: who listens has work while Nix reads the next file.
#   one ITEM    the value of this item. Where it throws, the evaluation fails, and Nix says why.
platforms: flake:
let
  inherit (builtins)
    addErrorContext
    attrNames
    concatMap
    concatStringsSep
    elem
    elemAt
    filter
    foldl'
    genList
    getAttr
    hasAttr
    hasContext
    head
    isAttrs
    isString
    length
    listToAttrs
    mapAttrs
    match
    removeAttrs
    replaceStrings
    seq
    tail
    toJSON
    trace
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

  plainSet = value: if isAttrs value then value else null;

  # Of each kind: where its items are, and what `read` gives of the place of one. `plain` gives the same of a value that is as it should
  # be, most likely plain data, and null of any other: with thousands of items, it saves most of the time.
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
      plain =
        value:
        let
          inherit (value) template;
        in
        if isAttrs value && value ? template && isAttrs template && isString (template.narId or null) then value else null;
    };
    units = {
      place = "clavel.units";
      found = clavel.units or { };
      read = setOf "a set, such as { type = …; arch = …; }";
      plain = plainSet;
    };
    agents = {
      place = "clavel.agents";
      found = clavel.agents or { };
      read = setOf "a set, such as { deployments = [ … ]; }";
      plain = plainSet;
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
        # The options of Clavel's module, where a host has it.
        options = if isAttrs host then host.config.services.clavel-agent or { } else { };
      in
      {
        checks = options.checks or { };
        mode = options.mode or null;
        nar = nar (hostSystem host) (itself toplevel);
        probation = options.probation or { };
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
      narOfText system "${value}"
    else
      misshapen at "a derivation";

  narOfText =
    system: path:
    if system == null then
      path
    else
      {
        inherit path system;
        drv = null;
      };

  # The same as `one`, for what is plain data as it should be; null of any other.
  asPlain =
    item:
    let
      kind = getAttr (head item) kinds;
    in
    kind.plain (kind.found.${elemAt item 1} or null);

  # The same as `one`, for what is most likely plain data.
  plain =
    item:
    let
      value = asPlain item;
    in
    if value == null then one item else value;

  place =
    item:
    let
      kind = getAttr (head item) kinds;
    in
    itself (foldl' (below "a set") (at kind.place kind.found) (tail item));

  one = item: (getAttr (head item) kinds).read (place item);

  # The answer that `value` is, as JSON.
  answer =
    value:
    let
      text = tryEval (toJSON value);
    in
    if text.success then "{\"ok\":${text.value}}" else failed;
  failed = "{\"failed\":true}";

  # An error of `value` says that it is in `item`, where Nix knows no place closer to it.
  within =
    item: value:
    let
      it = place item;
    in
    addErrorContext "while evaluating ${it.place}${positionOf it}" value;
in
{
  tell =
    asked:
    let
      names = listToAttrs (
        map (kind: {
          name = kind;
          value = paths (getAttr kind kinds);
        }) asked.kinds
      );
      # Tells the names of some kinds, and each time those that belong to none.
      sayNames =
        some:
        say "names" (toJSON {
          kinds = listToAttrs (
            map (name: {
              inherit name;
              value = getAttr name names;
            }) some
          );
          others = attrNames (removeAttrs clavel [ "deployments" "units" "agents" "withdraw" ]);
          withdraw = clavel.withdraw or [ ];
        });
      apart = listToAttrs (
        map (item: {
          name = toJSON item;
          value = null;
        }) asked.apart
      );
      isAsked = if asked.apart == [ ] then _: true else item: !hasAttr (toJSON item) apart;
      of = kind: filter isAsked (map (below: [ kind ] ++ below) names.${kind});
      runOf = kind: {
        together = !hasAttr kind platforms;
        items = of kind;
      };
      from = start: items: genList (at: elemAt items (start + at)) (length items - start);
      say = word: text: trace "${asked.mark}${word} ${text}" null;
      begin = item: say "begin" (toJSON item);
      sayGroup = items: if items == [ ] then null else say "group" (toJSON (head items));
      answers = texts: if texts == [ ] then null else say "answers" "[${concatStringsSep "," texts}]";
      # The texts that are not told yet, with that of `item`.
      gather =
        texts: item:
        let
          text = answer (plain item);
        in
        if hasContext text then seq (answers texts) (seq (answers [ text ]) [ ]) else texts ++ [ text ];
      groupAt =
        items: start:
        let
          left = length items - start;
        in
        genList (at: elemAt items (start + at)) (if left < asked.group then left else asked.group);
      # The values of a group as one text, where all of it is plain data and nothing throws, as it is most often; otherwise null.
      whole =
        items:
        let
          values = map asPlain items;
          text = tryEval (if elem null values then null else toJSON values);
        in
        if text.success && text.value != null && !hasContext text.value then text.value else null;
      # Tells the groups of `items` from the one at `start` on, up to the first that is not one text. Gives the place of that group.
      tellWhole =
        items: start:
        let
          group = groupAt items start;
          text = if group == [ ] then null else whole group;
        in
        if text == null then start else seq (say "values" text) (tellWhole items (start + length group));
      # The same up to the last group. The values of one that is not one text are told one by one.
      tellGroups =
        items: start:
        let
          next = tellWhole items start;
          group = groupAt items next;
          told = answers (foldl' gather [ ] group);
        in
        if group == [ ] then null else seq told (tellGroups items (next + length group));
      # `thrown` is the first item that was told by itself and threw, or null.
      alone =
        thrown: item:
        let
          text = within item (answer (one item));
          told = seq (begin item) (answers [ text ]);
        in
        seq told (if thrown == null && text == failed then item else thrown);
      tellRun =
        thrown: run:
        if run.items == [ ] then
          thrown
        else if run.together then
          seq (sayGroup run.items) (seq (tellGroups run.items 0) thrown)
        else
          foldl' alone thrown run.items;
      # Tells the names of `kind`, and its values as far as they are plain data. `before` is the result for the kinds before it: how
      # many kinds are told, and which values are left of the last one. Nothing is told ahead of those.
      ahead =
        before: kind:
        let
          items = of kind;
          start = seq (sayNames [ kind ]) (seq (sayGroup items) (tellWhole items 0));
        in
        if before.left != [ ] then
          before
        else
          seq start {
            told = before.told + 1;
            left = from start items;
          };
      first = {
        told = 0;
        left = [ ];
      };
      begun = if asked.only == null then foldl' ahead first (filter (kind: !hasAttr kind platforms) asked.kinds) else first;
      others = from begun.told asked.kinds;
      left = {
        together = true;
        items = begun.left;
      };
      runs = if asked.only == null then [ left ] ++ map runOf others else asked.only;
      thrown = seq begun (seq (if others == [ ] then null else sayNames others) (foldl' tellRun null runs));
    in
    if thrown == null then null else seq (begin thrown) (within thrown (toJSON (one thrown)));
  one =
    item:
    let
      value = one item;
    in
    within item (seq (toJSON value) value);
}
