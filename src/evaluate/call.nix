# Calls a flake as Nix itself calls it (Nix's manual, "nix flake"), so that what it uses is seen: the attributes that the
# flake is told of itself, and its inputs, say by a trace that they were used. Everything is in the store already, or is
# fetched when it is used.
#   data   what `lock.rs` makes of the lock
#   mark   what our own traces begin with
#   moved  null; or a name under which the flake's own tree lies in the store once more, to be called from there
{
  data,
  mark,
  moved,
}:
let
  inherit (builtins)
    compareVersions
    fetchTree
    isFunction
    mapAttrs
    nixVersion
    path
    toJSON
    trace
    ;

  since = version: compareVersions nixVersion version >= 0;
  telling = kind: mapAttrs (name: value: trace "${mark}${kind} ${toJSON name}" value);

  called = mapAttrs (
    key: tree:
    let
      own = key == data.root;
      fetched = fetchTree (
        if tree ? storePath then
          {
            type = "path";
            path = tree.storePath;
            inherit (tree) narHash;
          }
        else
          tree.locked
      );
      outPath =
        if own && moved != null then
          path {
            path = fetched.outPath;
            name = moved;
            sha256 = tree.narHash;
          }
        else
          fetched.outPath;
      folder = outPath + (if tree.dir == "" then "" else "/" + tree.dir);
      flake = import (folder + "/flake.nix");
      told = if own then telling "own" else attributes: attributes;
      sourceInfo = told (tree.info // { inherit outPath; });
      # Nix names the folder of the flake since 2.14, and the whole tree before.
      named = if since "2.14" then told { outPath = folder; } else { };
      inputs = (if own then telling "input" else attributes: attributes) (
        mapAttrs (_: input: called.${input}) tree.inputs
      );
      outputs = flake.outputs (inputs // { self = result; });
      result =
        outputs
        // sourceInfo
        // named
        // {
          inherit inputs outputs sourceInfo;
        }
        // (if since "2.14" then { _type = "flake"; } else { });
    in
    if tree.flake then
      assert isFunction flake.outputs;
      result
    else
      sourceInfo // (if since "2.26" then { inherit sourceInfo; } // named else { })
  ) data.trees;
in
called.${data.root}
