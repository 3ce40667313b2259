# Calls a flake as Nix itself calls it (Nix's manual, "nix flake"), and prints a trace for each attribute of `self` and for
# each input that the flake uses. A tree that is not in the store ends the evaluation when it is used.
#   data   the data that `lock.rs` makes of the lock
#   mark   the beginning of Clavel's traces
#   moved  null, or another name for the flake's own tree: the flake is then called at the store path of that name
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
  traced = kind: mapAttrs (name: value: trace "${mark}${kind} ${toJSON name}" value);

  called = mapAttrs (
    key: tree:
    let
      own = key == data.root;
      # Clavel has fetched every tree before, outside of the cage.
      fetched =
        if tree ? absent then
          abort tree.absent
        else
          fetchTree {
            type = "path";
            path = tree.storePath;
            inherit (tree) narHash;
          };
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
      ownTraced = if own then traced "own" else attributes: attributes;
      sourceInfo = ownTraced (tree.info // { inherit outPath; });
      # Since 2.14, `outPath` is the folder of the flake; before, it was the whole tree.
      flakePath = if since "2.14" then ownTraced { outPath = folder; } else { };
      inputs = (if own then traced "input" else attributes: attributes) (
        mapAttrs (_: input: called.${input}) tree.inputs
      );
      outputs = flake.outputs (inputs // { self = result; });
      result =
        outputs
        // sourceInfo
        // flakePath
        // {
          inherit inputs outputs sourceInfo;
        }
        // (if since "2.14" then { _type = "flake"; } else { });
    in
    if tree.flake then
      assert isFunction flake.outputs;
      result
    else
      sourceInfo // (if since "2.26" then { inherit sourceInfo; } // flakePath else { })
  ) data.trees;
in
called.${data.root}
