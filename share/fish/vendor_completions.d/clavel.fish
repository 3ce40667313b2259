# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_clavel_global_optspecs
    string join \n v/verbose h/help V/version
end

function __fish_clavel_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_clavel_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_clavel_using_subcommand
    set -l cmd (__fish_clavel_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c clavel -n "__fish_clavel_needs_command" -s v -l verbose -d 'Log to standard error which programs are run; given twice, log more'
complete -c clavel -n "__fish_clavel_needs_command" -s h -l help -d 'Print help'
complete -c clavel -n "__fish_clavel_needs_command" -s V -l version -d 'Print version'
complete -c clavel -n "__fish_clavel_needs_command" -f -a "init" -d 'Make a fleet: its first root, and the keys that no argument names'
complete -c clavel -n "__fish_clavel_needs_command" -f -a "root" -d 'Make, sign, show and publish roots'
complete -c clavel -n "__fish_clavel_needs_command" -f -a "key" -d 'Make keys, show their public halves, and convert them for OpenSSH'
complete -c clavel -n "__fish_clavel_needs_command" -f -a "bundle" -d 'Make, show and verify git bundles: a branch in one file, which travels without a network'
complete -c clavel -n "__fish_clavel_needs_command" -f -a "export" -d 'Write a branch as plain files, which any HTTP server, object store or CDN can serve'
complete -c clavel -n "__fish_clavel_needs_command" -f -a "list" -d 'List the deployments on a branch'
complete -c clavel -n "__fish_clavel_needs_command" -f -a "diff" -d 'Show the differences between two revisions of a deployment, down to packages and files'
complete -c clavel -n "__fish_clavel_needs_command" -f -a "history" -d 'List the revisions of a deployment, the newest first'
complete -c clavel -n "__fish_clavel_needs_command" -f -a "show" -d 'Show one document of a branch'
complete -c clavel -n "__fish_clavel_needs_command" -f -a "rollback" -d 'Publish the content of an earlier revision of a deployment again, as a new revision, and hold the deployment there'
complete -c clavel -n "__fish_clavel_needs_command" -f -a "hold" -d 'Hold a deployment at its revision, whatever its source gives, until `clavel release`'
complete -c clavel -n "__fish_clavel_needs_command" -f -a "release" -d 'Let a deployment that is held follow its source again, from claveld\'s next round on'
complete -c clavel -n "__fish_clavel_needs_command" -f -a "approve" -d 'Show what the newest revision of a deployment changes, and approve it'
complete -c clavel -n "__fish_clavel_needs_command" -f -a "check" -d 'Look at what these commands need: the repository, the root, and the keys that are given. Nothing is written'
complete -c clavel -n "__fish_clavel_needs_command" -f -a "verify" -d 'Verify everything on a branch, as an agent would'
complete -c clavel -n "__fish_clavel_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c clavel -n "__fish_clavel_using_subcommand init" -l root-key -d 'A key that signs roots: its public half, Nix\'s or OpenSSH\'s, or a file with it; may be given more than once' -r
complete -c clavel -n "__fish_clavel_using_subcommand init" -l root-threshold -d 'The number of root keys that have to sign a root' -r
complete -c clavel -n "__fish_clavel_using_subcommand init" -l publisher-key -d 'A key that signs the index and the documents: claveld\'s' -r
complete -c clavel -n "__fish_clavel_using_subcommand init" -l publisher-threshold -d 'The number of publisher keys that have to sign a document' -r
complete -c clavel -n "__fish_clavel_using_subcommand init" -l approver-key -d 'A key that approves deployments' -r
complete -c clavel -n "__fish_clavel_using_subcommand init" -l approver-threshold -d 'The number of approvals that are needed at least, wherever the root asks for any' -r
complete -c clavel -n "__fish_clavel_using_subcommand init" -l approvals -d 'The deployments that have to be approved, and the number of approvals: `db-*=1`; may be given more than once' -r
complete -c clavel -n "__fish_clavel_using_subcommand init" -l index-age -d 'The agents that believe an index until this age, also where it has expired, because their site is rarely visited: `ship-*=45d`; may be given more than once' -r
complete -c clavel -n "__fish_clavel_using_subcommand init" -l expires-after -d 'The time after which the root expires' -r
complete -c clavel -n "__fish_clavel_using_subcommand init" -l repository -d 'The git repository that will carry the branch, for the configurations' -r
complete -c clavel -n "__fish_clavel_using_subcommand init" -l source -d 'The flake, for claveld\'s configuration. The default is the branch main of a repository on this machine' -r
complete -c clavel -n "__fish_clavel_using_subcommand init" -l hooks -d 'The bare repository of the flake on this machine: install the hooks there that check and publish each push' -r -F
complete -c clavel -n "__fish_clavel_using_subcommand init" -s v -l verbose -d 'Log to standard error which programs are run; given twice, log more'
complete -c clavel -n "__fish_clavel_using_subcommand init" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c clavel -n "__fish_clavel_using_subcommand root; and not __fish_seen_subcommand_from show next sign publish help" -s v -l verbose -d 'Log to standard error which programs are run; given twice, log more'
complete -c clavel -n "__fish_clavel_using_subcommand root; and not __fish_seen_subcommand_from show next sign publish help" -s h -l help -d 'Print help'
complete -c clavel -n "__fish_clavel_using_subcommand root; and not __fish_seen_subcommand_from show next sign publish help" -f -a "show" -d 'Show a root: its keys, their roles, and which deployments have to be approved'
complete -c clavel -n "__fish_clavel_using_subcommand root; and not __fish_seen_subcommand_from show next sign publish help" -f -a "next" -d 'Make the root after another one: with other keys, other thresholds, or a later expiry'
complete -c clavel -n "__fish_clavel_using_subcommand root; and not __fish_seen_subcommand_from show next sign publish help" -f -a "sign" -d 'Add a signature to a root that was made before'
complete -c clavel -n "__fish_clavel_using_subcommand root; and not __fish_seen_subcommand_from show next sign publish help" -f -a "publish" -d 'Put a root on the branch, where every agent finds it at its next pass'
complete -c clavel -n "__fish_clavel_using_subcommand root; and not __fish_seen_subcommand_from show next sign publish help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c clavel -n "__fish_clavel_using_subcommand root; and __fish_seen_subcommand_from show" -l json -d 'Print one JSON document: the root without its signatures'
complete -c clavel -n "__fish_clavel_using_subcommand root; and __fish_seen_subcommand_from show" -s v -l verbose -d 'Log to standard error which programs are run; given twice, log more'
complete -c clavel -n "__fish_clavel_using_subcommand root; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c clavel -n "__fish_clavel_using_subcommand root; and __fish_seen_subcommand_from next" -s o -l output -d 'The new file to write it to. A file that exists already stays as it is' -r -F
complete -c clavel -n "__fish_clavel_using_subcommand root; and __fish_seen_subcommand_from next" -l root-key -d 'A key that signs roots: its public half, Nix\'s or OpenSSH\'s, or a file with it; may be given more than once' -r
complete -c clavel -n "__fish_clavel_using_subcommand root; and __fish_seen_subcommand_from next" -l root-threshold -d 'The number of root keys that have to sign a root' -r
complete -c clavel -n "__fish_clavel_using_subcommand root; and __fish_seen_subcommand_from next" -l publisher-key -d 'A key that signs the index and the documents: claveld\'s' -r
complete -c clavel -n "__fish_clavel_using_subcommand root; and __fish_seen_subcommand_from next" -l publisher-threshold -d 'The number of publisher keys that have to sign a document' -r
complete -c clavel -n "__fish_clavel_using_subcommand root; and __fish_seen_subcommand_from next" -l approver-key -d 'A key that approves deployments' -r
complete -c clavel -n "__fish_clavel_using_subcommand root; and __fish_seen_subcommand_from next" -l approver-threshold -d 'The number of approvals that are needed at least, wherever the root asks for any' -r
complete -c clavel -n "__fish_clavel_using_subcommand root; and __fish_seen_subcommand_from next" -l approvals -d 'The deployments that have to be approved, and the number of approvals: `db-*=1`; may be given more than once' -r
complete -c clavel -n "__fish_clavel_using_subcommand root; and __fish_seen_subcommand_from next" -l index-age -d 'The agents that believe an index until this age, also where it has expired, because their site is rarely visited: `ship-*=45d`; may be given more than once' -r
complete -c clavel -n "__fish_clavel_using_subcommand root; and __fish_seen_subcommand_from next" -l expires-after -d 'The time after which the root expires' -r
complete -c clavel -n "__fish_clavel_using_subcommand root; and __fish_seen_subcommand_from next" -l remove-key -d 'A key that loses every role it has; may be given more than once' -r
complete -c clavel -n "__fish_clavel_using_subcommand root; and __fish_seen_subcommand_from next" -l no-approvals -d 'A pattern for which the root asks for no approvals any more; may be given more than once' -r
complete -c clavel -n "__fish_clavel_using_subcommand root; and __fish_seen_subcommand_from next" -l no-index-age -d 'A pattern of agents for which an index may be no older than it says itself any more; may be given more than once' -r
complete -c clavel -n "__fish_clavel_using_subcommand root; and __fish_seen_subcommand_from next" -l key -d 'A secret key that signs, in Nix\'s format; may be given more than once' -r -F
complete -c clavel -n "__fish_clavel_using_subcommand root; and __fish_seen_subcommand_from next" -l ssh-key -d 'An OpenSSH key, with which ssh-keygen signs: a secret key, a hardware key, or the public half of a key in an ssh-agent; may be given more than once' -r
complete -c clavel -n "__fish_clavel_using_subcommand root; and __fish_seen_subcommand_from next" -l raise-epoch -d 'Begin a new epoch after a key was stolen: nothing that was signed before counts any more, and all versions and revisions begin at 1 again'
complete -c clavel -n "__fish_clavel_using_subcommand root; and __fish_seen_subcommand_from next" -s v -l verbose -d 'Log to standard error which programs are run; given twice, log more'
complete -c clavel -n "__fish_clavel_using_subcommand root; and __fish_seen_subcommand_from next" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c clavel -n "__fish_clavel_using_subcommand root; and __fish_seen_subcommand_from sign" -l key -d 'A secret key that signs, in Nix\'s format; may be given more than once' -r -F
complete -c clavel -n "__fish_clavel_using_subcommand root; and __fish_seen_subcommand_from sign" -l ssh-key -d 'An OpenSSH key, with which ssh-keygen signs: a secret key, a hardware key, or the public half of a key in an ssh-agent; may be given more than once' -r
complete -c clavel -n "__fish_clavel_using_subcommand root; and __fish_seen_subcommand_from sign" -s v -l verbose -d 'Log to standard error which programs are run; given twice, log more'
complete -c clavel -n "__fish_clavel_using_subcommand root; and __fish_seen_subcommand_from sign" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c clavel -n "__fish_clavel_using_subcommand root; and __fish_seen_subcommand_from publish" -l repository -d 'The repository: a path, or a URL. A path that ends in .bundle is that of a git bundle, and a URL that begins with static+ that of a static folder' -r
complete -c clavel -n "__fish_clavel_using_subcommand root; and __fish_seen_subcommand_from publish" -l branch -d 'The branch' -r
complete -c clavel -n "__fish_clavel_using_subcommand root; and __fish_seen_subcommand_from publish" -l credentials -d 'A file with [[credentials]] tables, as claveld\'s configuration has them, for a private repository. Without a table for it, what git has counts: its credential helpers and ~/.netrc' -r -F
complete -c clavel -n "__fish_clavel_using_subcommand root; and __fish_seen_subcommand_from publish" -s v -l verbose -d 'Log to standard error which programs are run; given twice, log more'
complete -c clavel -n "__fish_clavel_using_subcommand root; and __fish_seen_subcommand_from publish" -s h -l help -d 'Print help'
complete -c clavel -n "__fish_clavel_using_subcommand root; and __fish_seen_subcommand_from help" -f -a "show" -d 'Show a root: its keys, their roles, and which deployments have to be approved'
complete -c clavel -n "__fish_clavel_using_subcommand root; and __fish_seen_subcommand_from help" -f -a "next" -d 'Make the root after another one: with other keys, other thresholds, or a later expiry'
complete -c clavel -n "__fish_clavel_using_subcommand root; and __fish_seen_subcommand_from help" -f -a "sign" -d 'Add a signature to a root that was made before'
complete -c clavel -n "__fish_clavel_using_subcommand root; and __fish_seen_subcommand_from help" -f -a "publish" -d 'Put a root on the branch, where every agent finds it at its next pass'
complete -c clavel -n "__fish_clavel_using_subcommand root; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c clavel -n "__fish_clavel_using_subcommand key; and not __fish_seen_subcommand_from generate public to-ssh help" -s v -l verbose -d 'Log to standard error which programs are run; given twice, log more'
complete -c clavel -n "__fish_clavel_using_subcommand key; and not __fish_seen_subcommand_from generate public to-ssh help" -s h -l help -d 'Print help'
complete -c clavel -n "__fish_clavel_using_subcommand key; and not __fish_seen_subcommand_from generate public to-ssh help" -f -a "generate" -d 'Make a secret key in Nix\'s format, in a file that only its owner can read, and print its public half'
complete -c clavel -n "__fish_clavel_using_subcommand key; and not __fish_seen_subcommand_from generate public to-ssh help" -f -a "public" -d 'Print the public half of a secret key'
complete -c clavel -n "__fish_clavel_using_subcommand key; and not __fish_seen_subcommand_from generate public to-ssh help" -f -a "to-ssh" -d 'Write a secret key in OpenSSH\'s format, so that `ssh-add` can load it into an ssh-agent'
complete -c clavel -n "__fish_clavel_using_subcommand key; and not __fish_seen_subcommand_from generate public to-ssh help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c clavel -n "__fish_clavel_using_subcommand key; and __fish_seen_subcommand_from generate" -s o -l output -d 'The new file to write it to. A file that exists already stays as it is' -r -F
complete -c clavel -n "__fish_clavel_using_subcommand key; and __fish_seen_subcommand_from generate" -s v -l verbose -d 'Log to standard error which programs are run; given twice, log more'
complete -c clavel -n "__fish_clavel_using_subcommand key; and __fish_seen_subcommand_from generate" -s h -l help -d 'Print help'
complete -c clavel -n "__fish_clavel_using_subcommand key; and __fish_seen_subcommand_from public" -s v -l verbose -d 'Log to standard error which programs are run; given twice, log more'
complete -c clavel -n "__fish_clavel_using_subcommand key; and __fish_seen_subcommand_from public" -s h -l help -d 'Print help'
complete -c clavel -n "__fish_clavel_using_subcommand key; and __fish_seen_subcommand_from to-ssh" -s o -l output -d 'The new file to write it to. A file that exists already stays as it is' -r -F
complete -c clavel -n "__fish_clavel_using_subcommand key; and __fish_seen_subcommand_from to-ssh" -s v -l verbose -d 'Log to standard error which programs are run; given twice, log more'
complete -c clavel -n "__fish_clavel_using_subcommand key; and __fish_seen_subcommand_from to-ssh" -s h -l help -d 'Print help'
complete -c clavel -n "__fish_clavel_using_subcommand key; and __fish_seen_subcommand_from help" -f -a "generate" -d 'Make a secret key in Nix\'s format, in a file that only its owner can read, and print its public half'
complete -c clavel -n "__fish_clavel_using_subcommand key; and __fish_seen_subcommand_from help" -f -a "public" -d 'Print the public half of a secret key'
complete -c clavel -n "__fish_clavel_using_subcommand key; and __fish_seen_subcommand_from help" -f -a "to-ssh" -d 'Write a secret key in OpenSSH\'s format, so that `ssh-add` can load it into an ssh-agent'
complete -c clavel -n "__fish_clavel_using_subcommand key; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c clavel -n "__fish_clavel_using_subcommand bundle; and not __fish_seen_subcommand_from create inspect verify help" -s v -l verbose -d 'Log to standard error which programs are run; given twice, log more'
complete -c clavel -n "__fish_clavel_using_subcommand bundle; and not __fish_seen_subcommand_from create inspect verify help" -s h -l help -d 'Print help'
complete -c clavel -n "__fish_clavel_using_subcommand bundle; and not __fish_seen_subcommand_from create inspect verify help" -f -a "create" -d 'Write a branch to a git bundle: one file, which a stick carries to machines without a network'
complete -c clavel -n "__fish_clavel_using_subcommand bundle; and not __fish_seen_subcommand_from create inspect verify help" -f -a "inspect" -d 'Show what a bundle has, without verifying it'
complete -c clavel -n "__fish_clavel_using_subcommand bundle; and not __fish_seen_subcommand_from create inspect verify help" -f -a "verify" -d 'Verify everything in a bundle, as an agent would'
complete -c clavel -n "__fish_clavel_using_subcommand bundle; and not __fish_seen_subcommand_from create inspect verify help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c clavel -n "__fish_clavel_using_subcommand bundle; and __fish_seen_subcommand_from create" -l repository -d 'The repository: a path, or a URL. A path that ends in .bundle is that of a git bundle, and a URL that begins with static+ that of a static folder' -r
complete -c clavel -n "__fish_clavel_using_subcommand bundle; and __fish_seen_subcommand_from create" -l branch -d 'The branch' -r
complete -c clavel -n "__fish_clavel_using_subcommand bundle; and __fish_seen_subcommand_from create" -l credentials -d 'A file with [[credentials]] tables, as claveld\'s configuration has them, for a private repository. Without a table for it, what git has counts: its credential helpers and ~/.netrc' -r -F
complete -c clavel -n "__fish_clavel_using_subcommand bundle; and __fish_seen_subcommand_from create" -l since -d 'The commit that the readers have already, or the earlier bundle that they have read' -r
complete -c clavel -n "__fish_clavel_using_subcommand bundle; and __fish_seen_subcommand_from create" -l closures -d 'Add the closures of these deployments; without names, of all deployments' -r
complete -c clavel -n "__fish_clavel_using_subcommand bundle; and __fish_seen_subcommand_from create" -l root -d 'The root that verifies the branch, before anything is fetched for --closures: a file with any root of the fleet, or the digest of its first root' -r
complete -c clavel -n "__fish_clavel_using_subcommand bundle; and __fish_seen_subcommand_from create" -l store -d 'The store to fetch the closures to: a folder that has, or gets, a nix/store below it. Without it, the machine\'s own store' -r -F
complete -c clavel -n "__fish_clavel_using_subcommand bundle; and __fish_seen_subcommand_from create" -s v -l verbose -d 'Log to standard error which programs are run; given twice, log more'
complete -c clavel -n "__fish_clavel_using_subcommand bundle; and __fish_seen_subcommand_from create" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c clavel -n "__fish_clavel_using_subcommand bundle; and __fish_seen_subcommand_from inspect" -l branch -d 'The branch' -r
complete -c clavel -n "__fish_clavel_using_subcommand bundle; and __fish_seen_subcommand_from inspect" -l json -d 'Print one JSON document'
complete -c clavel -n "__fish_clavel_using_subcommand bundle; and __fish_seen_subcommand_from inspect" -s v -l verbose -d 'Log to standard error which programs are run; given twice, log more'
complete -c clavel -n "__fish_clavel_using_subcommand bundle; and __fish_seen_subcommand_from inspect" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c clavel -n "__fish_clavel_using_subcommand bundle; and __fish_seen_subcommand_from verify" -l branch -d 'The branch' -r
complete -c clavel -n "__fish_clavel_using_subcommand bundle; and __fish_seen_subcommand_from verify" -l root -d 'The root that verifies it: a file with any root of the fleet, or the digest of its first root' -r
complete -c clavel -n "__fish_clavel_using_subcommand bundle; and __fish_seen_subcommand_from verify" -l json -d 'Print one JSON document'
complete -c clavel -n "__fish_clavel_using_subcommand bundle; and __fish_seen_subcommand_from verify" -s v -l verbose -d 'Log to standard error which programs are run; given twice, log more'
complete -c clavel -n "__fish_clavel_using_subcommand bundle; and __fish_seen_subcommand_from verify" -s h -l help -d 'Print help'
complete -c clavel -n "__fish_clavel_using_subcommand bundle; and __fish_seen_subcommand_from help" -f -a "create" -d 'Write a branch to a git bundle: one file, which a stick carries to machines without a network'
complete -c clavel -n "__fish_clavel_using_subcommand bundle; and __fish_seen_subcommand_from help" -f -a "inspect" -d 'Show what a bundle has, without verifying it'
complete -c clavel -n "__fish_clavel_using_subcommand bundle; and __fish_seen_subcommand_from help" -f -a "verify" -d 'Verify everything in a bundle, as an agent would'
complete -c clavel -n "__fish_clavel_using_subcommand bundle; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c clavel -n "__fish_clavel_using_subcommand export" -l static -d 'The folder to write to. It is made where it does not exist' -r -F
complete -c clavel -n "__fish_clavel_using_subcommand export" -l repository -d 'The repository: a path, or a URL. A path that ends in .bundle is that of a git bundle, and a URL that begins with static+ that of a static folder' -r
complete -c clavel -n "__fish_clavel_using_subcommand export" -l branch -d 'The branch' -r
complete -c clavel -n "__fish_clavel_using_subcommand export" -l credentials -d 'A file with [[credentials]] tables, as claveld\'s configuration has them, for a private repository. Without a table for it, what git has counts: its credential helpers and ~/.netrc' -r -F
complete -c clavel -n "__fish_clavel_using_subcommand export" -l root -d 'The root that verifies the branch: a file with any root of the fleet, or the digest of its first root' -r
complete -c clavel -n "__fish_clavel_using_subcommand export" -l remove-unnamed-after -d 'Remove files that the tip has not named for this long, for example 1d. Readers and caches may still have an older tip, so it should be longer than any cache keeps one' -r
complete -c clavel -n "__fish_clavel_using_subcommand export" -s v -l verbose -d 'Log to standard error which programs are run; given twice, log more'
complete -c clavel -n "__fish_clavel_using_subcommand export" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c clavel -n "__fish_clavel_using_subcommand list" -l repository -d 'The repository: a path, or a URL. A path that ends in .bundle is that of a git bundle, and a URL that begins with static+ that of a static folder' -r
complete -c clavel -n "__fish_clavel_using_subcommand list" -l branch -d 'The branch' -r
complete -c clavel -n "__fish_clavel_using_subcommand list" -l credentials -d 'A file with [[credentials]] tables, as claveld\'s configuration has them, for a private repository. Without a table for it, what git has counts: its credential helpers and ~/.netrc' -r -F
complete -c clavel -n "__fish_clavel_using_subcommand list" -l root -d 'The root that verifies the branch: a file with any root of the fleet, or the digest of its first root' -r
complete -c clavel -n "__fish_clavel_using_subcommand list" -l json -d 'Print one JSON document: the deployments, as they are signed, and the sources, as the index has them'
complete -c clavel -n "__fish_clavel_using_subcommand list" -s v -l verbose -d 'Log to standard error which programs are run; given twice, log more'
complete -c clavel -n "__fish_clavel_using_subcommand list" -s h -l help -d 'Print help'
complete -c clavel -n "__fish_clavel_using_subcommand diff" -l from -d 'The older revision [default: the one before the newer revision]' -r
complete -c clavel -n "__fish_clavel_using_subcommand diff" -l to -d 'The newer revision [default: the newest on the branch]' -r
complete -c clavel -n "__fish_clavel_using_subcommand diff" -l repository -d 'The repository: a path, or a URL. A path that ends in .bundle is that of a git bundle, and a URL that begins with static+ that of a static folder' -r
complete -c clavel -n "__fish_clavel_using_subcommand diff" -l branch -d 'The branch' -r
complete -c clavel -n "__fish_clavel_using_subcommand diff" -l credentials -d 'A file with [[credentials]] tables, as claveld\'s configuration has them, for a private repository. Without a table for it, what git has counts: its credential helpers and ~/.netrc' -r -F
complete -c clavel -n "__fish_clavel_using_subcommand diff" -l root -d 'The root that verifies the branch: a file with any root of the fleet, or the digest of its first root' -r
complete -c clavel -n "__fish_clavel_using_subcommand diff" -l json -d 'Print one JSON document'
complete -c clavel -n "__fish_clavel_using_subcommand diff" -s v -l verbose -d 'Log to standard error which programs are run; given twice, log more'
complete -c clavel -n "__fish_clavel_using_subcommand diff" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c clavel -n "__fish_clavel_using_subcommand history" -l repository -d 'The repository: a path, or a URL. A path that ends in .bundle is that of a git bundle, and a URL that begins with static+ that of a static folder' -r
complete -c clavel -n "__fish_clavel_using_subcommand history" -l branch -d 'The branch' -r
complete -c clavel -n "__fish_clavel_using_subcommand history" -l credentials -d 'A file with [[credentials]] tables, as claveld\'s configuration has them, for a private repository. Without a table for it, what git has counts: its credential helpers and ~/.netrc' -r -F
complete -c clavel -n "__fish_clavel_using_subcommand history" -l root -d 'The root that verifies the branch: a file with any root of the fleet, or the digest of its first root' -r
complete -c clavel -n "__fish_clavel_using_subcommand history" -l json -d 'Print one JSON document: a list of the revisions, the newest first'
complete -c clavel -n "__fish_clavel_using_subcommand history" -s v -l verbose -d 'Log to standard error which programs are run; given twice, log more'
complete -c clavel -n "__fish_clavel_using_subcommand history" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c clavel -n "__fish_clavel_using_subcommand show" -l kind -d 'The kind of the document' -r -f -a "deployment\t''
unit\t''
agent\t''"
complete -c clavel -n "__fish_clavel_using_subcommand show" -l repository -d 'The repository: a path, or a URL. A path that ends in .bundle is that of a git bundle, and a URL that begins with static+ that of a static folder' -r
complete -c clavel -n "__fish_clavel_using_subcommand show" -l branch -d 'The branch' -r
complete -c clavel -n "__fish_clavel_using_subcommand show" -l credentials -d 'A file with [[credentials]] tables, as claveld\'s configuration has them, for a private repository. Without a table for it, what git has counts: its credential helpers and ~/.netrc' -r -F
complete -c clavel -n "__fish_clavel_using_subcommand show" -l root -d 'The root that verifies the branch: a file with any root of the fleet, or the digest of its first root' -r
complete -c clavel -n "__fish_clavel_using_subcommand show" -l json -d 'Print the document as JSON, without its signatures'
complete -c clavel -n "__fish_clavel_using_subcommand show" -s v -l verbose -d 'Log to standard error which programs are run; given twice, log more'
complete -c clavel -n "__fish_clavel_using_subcommand show" -s h -l help -d 'Print help'
complete -c clavel -n "__fish_clavel_using_subcommand rollback" -l to -d 'The revision to go back to' -r
complete -c clavel -n "__fish_clavel_using_subcommand rollback" -l why -d 'The reason, which the commit and `clavel show` show: one line of at most 1024 bytes' -r
complete -c clavel -n "__fish_clavel_using_subcommand rollback" -l config -d 'The configuration file' -r -F
complete -c clavel -n "__fish_clavel_using_subcommand rollback" -l trust-removed-keys -d 'Go back also to what a key signed that a later root removed. Nobody may have stolen that key: it could have signed anything'
complete -c clavel -n "__fish_clavel_using_subcommand rollback" -l json -d 'Print one JSON document'
complete -c clavel -n "__fish_clavel_using_subcommand rollback" -s v -l verbose -d 'Log to standard error which programs are run; given twice, log more'
complete -c clavel -n "__fish_clavel_using_subcommand rollback" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c clavel -n "__fish_clavel_using_subcommand hold" -l until -d 'When they follow their sources again by themselves: a date, a time such as 2027-01-07T06:00:00Z, or a length such as 3d' -r
complete -c clavel -n "__fish_clavel_using_subcommand hold" -l why -d 'The reason, which the commit and `clavel show` show: one line of at most 1024 bytes' -r
complete -c clavel -n "__fish_clavel_using_subcommand hold" -l config -d 'The configuration file' -r -F
complete -c clavel -n "__fish_clavel_using_subcommand hold" -l json -d 'Print one JSON document'
complete -c clavel -n "__fish_clavel_using_subcommand hold" -s v -l verbose -d 'Log to standard error which programs are run; given twice, log more'
complete -c clavel -n "__fish_clavel_using_subcommand hold" -s h -l help -d 'Print help'
complete -c clavel -n "__fish_clavel_using_subcommand release" -l why -d 'The reason, which the commit and `clavel show` show: one line of at most 1024 bytes' -r
complete -c clavel -n "__fish_clavel_using_subcommand release" -l config -d 'The configuration file' -r -F
complete -c clavel -n "__fish_clavel_using_subcommand release" -l json -d 'Print one JSON document'
complete -c clavel -n "__fish_clavel_using_subcommand release" -s v -l verbose -d 'Log to standard error which programs are run; given twice, log more'
complete -c clavel -n "__fish_clavel_using_subcommand release" -s h -l help -d 'Print help'
complete -c clavel -n "__fish_clavel_using_subcommand approve" -l repository -d 'The repository: a path, or a URL. A path that ends in .bundle is that of a git bundle, and a URL that begins with static+ that of a static folder' -r
complete -c clavel -n "__fish_clavel_using_subcommand approve" -l branch -d 'The branch' -r
complete -c clavel -n "__fish_clavel_using_subcommand approve" -l credentials -d 'A file with [[credentials]] tables, as claveld\'s configuration has them, for a private repository. Without a table for it, what git has counts: its credential helpers and ~/.netrc' -r -F
complete -c clavel -n "__fish_clavel_using_subcommand approve" -l root -d 'The root that verifies the branch: a file with any root of the fleet, or the digest of its first root' -r
complete -c clavel -n "__fish_clavel_using_subcommand approve" -l key -d 'A secret key that signs, in Nix\'s format; may be given more than once' -r -F
complete -c clavel -n "__fish_clavel_using_subcommand approve" -l ssh-key -d 'An OpenSSH key, with which ssh-keygen signs: a secret key, a hardware key, or the public half of a key in an ssh-agent; may be given more than once' -r
complete -c clavel -n "__fish_clavel_using_subcommand approve" -s o -l output -d 'Write the approval to this new file, for a pull request, and not to the branch. A file that exists already stays as it is' -r -F
complete -c clavel -n "__fish_clavel_using_subcommand approve" -s y -l yes -d 'Approve without asking'
complete -c clavel -n "__fish_clavel_using_subcommand approve" -s v -l verbose -d 'Log to standard error which programs are run; given twice, log more'
complete -c clavel -n "__fish_clavel_using_subcommand approve" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c clavel -n "__fish_clavel_using_subcommand check" -l repository -d 'The repository: a path, or a URL. A path that ends in .bundle is that of a git bundle, and a URL that begins with static+ that of a static folder' -r
complete -c clavel -n "__fish_clavel_using_subcommand check" -l branch -d 'The branch' -r
complete -c clavel -n "__fish_clavel_using_subcommand check" -l credentials -d 'A file with [[credentials]] tables, as claveld\'s configuration has them, for a private repository. Without a table for it, what git has counts: its credential helpers and ~/.netrc' -r -F
complete -c clavel -n "__fish_clavel_using_subcommand check" -l root -d 'The root that verifies the branch: a file with any root of the fleet, or the digest of its first root' -r
complete -c clavel -n "__fish_clavel_using_subcommand check" -l key -d 'A secret key that signs, in Nix\'s format; may be given more than once' -r -F
complete -c clavel -n "__fish_clavel_using_subcommand check" -l ssh-key -d 'An OpenSSH key, with which ssh-keygen signs: a secret key, a hardware key, or the public half of a key in an ssh-agent; may be given more than once' -r
complete -c clavel -n "__fish_clavel_using_subcommand check" -l json -d 'Print one JSON document'
complete -c clavel -n "__fish_clavel_using_subcommand check" -s q -l quiet -d 'Print only warnings, problems and the summary'
complete -c clavel -n "__fish_clavel_using_subcommand check" -s v -l verbose -d 'Log to standard error which programs are run; given twice, log more'
complete -c clavel -n "__fish_clavel_using_subcommand check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c clavel -n "__fish_clavel_using_subcommand verify" -l repository -d 'The repository: a path, or a URL. A path that ends in .bundle is that of a git bundle, and a URL that begins with static+ that of a static folder' -r
complete -c clavel -n "__fish_clavel_using_subcommand verify" -l branch -d 'The branch' -r
complete -c clavel -n "__fish_clavel_using_subcommand verify" -l credentials -d 'A file with [[credentials]] tables, as claveld\'s configuration has them, for a private repository. Without a table for it, what git has counts: its credential helpers and ~/.netrc' -r -F
complete -c clavel -n "__fish_clavel_using_subcommand verify" -l root -d 'The root that verifies the branch: a file with any root of the fleet, or the digest of its first root' -r
complete -c clavel -n "__fish_clavel_using_subcommand verify" -l json -d 'Print one JSON document'
complete -c clavel -n "__fish_clavel_using_subcommand verify" -s v -l verbose -d 'Log to standard error which programs are run; given twice, log more'
complete -c clavel -n "__fish_clavel_using_subcommand verify" -s h -l help -d 'Print help'
complete -c clavel -n "__fish_clavel_using_subcommand help; and not __fish_seen_subcommand_from init root key bundle export list diff history show rollback hold release approve check verify help" -f -a "init" -d 'Make a fleet: its first root, and the keys that no argument names'
complete -c clavel -n "__fish_clavel_using_subcommand help; and not __fish_seen_subcommand_from init root key bundle export list diff history show rollback hold release approve check verify help" -f -a "root" -d 'Make, sign, show and publish roots'
complete -c clavel -n "__fish_clavel_using_subcommand help; and not __fish_seen_subcommand_from init root key bundle export list diff history show rollback hold release approve check verify help" -f -a "key" -d 'Make keys, show their public halves, and convert them for OpenSSH'
complete -c clavel -n "__fish_clavel_using_subcommand help; and not __fish_seen_subcommand_from init root key bundle export list diff history show rollback hold release approve check verify help" -f -a "bundle" -d 'Make, show and verify git bundles: a branch in one file, which travels without a network'
complete -c clavel -n "__fish_clavel_using_subcommand help; and not __fish_seen_subcommand_from init root key bundle export list diff history show rollback hold release approve check verify help" -f -a "export" -d 'Write a branch as plain files, which any HTTP server, object store or CDN can serve'
complete -c clavel -n "__fish_clavel_using_subcommand help; and not __fish_seen_subcommand_from init root key bundle export list diff history show rollback hold release approve check verify help" -f -a "list" -d 'List the deployments on a branch'
complete -c clavel -n "__fish_clavel_using_subcommand help; and not __fish_seen_subcommand_from init root key bundle export list diff history show rollback hold release approve check verify help" -f -a "diff" -d 'Show the differences between two revisions of a deployment, down to packages and files'
complete -c clavel -n "__fish_clavel_using_subcommand help; and not __fish_seen_subcommand_from init root key bundle export list diff history show rollback hold release approve check verify help" -f -a "history" -d 'List the revisions of a deployment, the newest first'
complete -c clavel -n "__fish_clavel_using_subcommand help; and not __fish_seen_subcommand_from init root key bundle export list diff history show rollback hold release approve check verify help" -f -a "show" -d 'Show one document of a branch'
complete -c clavel -n "__fish_clavel_using_subcommand help; and not __fish_seen_subcommand_from init root key bundle export list diff history show rollback hold release approve check verify help" -f -a "rollback" -d 'Publish the content of an earlier revision of a deployment again, as a new revision, and hold the deployment there'
complete -c clavel -n "__fish_clavel_using_subcommand help; and not __fish_seen_subcommand_from init root key bundle export list diff history show rollback hold release approve check verify help" -f -a "hold" -d 'Hold a deployment at its revision, whatever its source gives, until `clavel release`'
complete -c clavel -n "__fish_clavel_using_subcommand help; and not __fish_seen_subcommand_from init root key bundle export list diff history show rollback hold release approve check verify help" -f -a "release" -d 'Let a deployment that is held follow its source again, from claveld\'s next round on'
complete -c clavel -n "__fish_clavel_using_subcommand help; and not __fish_seen_subcommand_from init root key bundle export list diff history show rollback hold release approve check verify help" -f -a "approve" -d 'Show what the newest revision of a deployment changes, and approve it'
complete -c clavel -n "__fish_clavel_using_subcommand help; and not __fish_seen_subcommand_from init root key bundle export list diff history show rollback hold release approve check verify help" -f -a "check" -d 'Look at what these commands need: the repository, the root, and the keys that are given. Nothing is written'
complete -c clavel -n "__fish_clavel_using_subcommand help; and not __fish_seen_subcommand_from init root key bundle export list diff history show rollback hold release approve check verify help" -f -a "verify" -d 'Verify everything on a branch, as an agent would'
complete -c clavel -n "__fish_clavel_using_subcommand help; and not __fish_seen_subcommand_from init root key bundle export list diff history show rollback hold release approve check verify help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c clavel -n "__fish_clavel_using_subcommand help; and __fish_seen_subcommand_from root" -f -a "show" -d 'Show a root: its keys, their roles, and which deployments have to be approved'
complete -c clavel -n "__fish_clavel_using_subcommand help; and __fish_seen_subcommand_from root" -f -a "next" -d 'Make the root after another one: with other keys, other thresholds, or a later expiry'
complete -c clavel -n "__fish_clavel_using_subcommand help; and __fish_seen_subcommand_from root" -f -a "sign" -d 'Add a signature to a root that was made before'
complete -c clavel -n "__fish_clavel_using_subcommand help; and __fish_seen_subcommand_from root" -f -a "publish" -d 'Put a root on the branch, where every agent finds it at its next pass'
complete -c clavel -n "__fish_clavel_using_subcommand help; and __fish_seen_subcommand_from key" -f -a "generate" -d 'Make a secret key in Nix\'s format, in a file that only its owner can read, and print its public half'
complete -c clavel -n "__fish_clavel_using_subcommand help; and __fish_seen_subcommand_from key" -f -a "public" -d 'Print the public half of a secret key'
complete -c clavel -n "__fish_clavel_using_subcommand help; and __fish_seen_subcommand_from key" -f -a "to-ssh" -d 'Write a secret key in OpenSSH\'s format, so that `ssh-add` can load it into an ssh-agent'
complete -c clavel -n "__fish_clavel_using_subcommand help; and __fish_seen_subcommand_from bundle" -f -a "create" -d 'Write a branch to a git bundle: one file, which a stick carries to machines without a network'
complete -c clavel -n "__fish_clavel_using_subcommand help; and __fish_seen_subcommand_from bundle" -f -a "inspect" -d 'Show what a bundle has, without verifying it'
complete -c clavel -n "__fish_clavel_using_subcommand help; and __fish_seen_subcommand_from bundle" -f -a "verify" -d 'Verify everything in a bundle, as an agent would'
