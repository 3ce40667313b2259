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

complete -c clavel -n "__fish_clavel_needs_command" -s v -l verbose -d 'Say on standard error which programs are run; twice, say more'
complete -c clavel -n "__fish_clavel_needs_command" -s h -l help -d 'Print help'
complete -c clavel -n "__fish_clavel_needs_command" -s V -l version -d 'Print version'
complete -c clavel -n "__fish_clavel_needs_command" -f -a "key" -d 'Make keys, and show their public half'
complete -c clavel -n "__fish_clavel_needs_command" -f -a "list" -d 'List the deployments on a branch'
complete -c clavel -n "__fish_clavel_needs_command" -f -a "diff" -d 'Tell what differs between two revisions of a deployment, down to packages and files'
complete -c clavel -n "__fish_clavel_needs_command" -f -a "show" -d 'Show one document of a branch'
complete -c clavel -n "__fish_clavel_needs_command" -f -a "verify" -d 'Verify everything on a branch, as an agent would'
complete -c clavel -n "__fish_clavel_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c clavel -n "__fish_clavel_using_subcommand key; and not __fish_seen_subcommand_from generate public help" -s v -l verbose -d 'Say on standard error which programs are run; twice, say more'
complete -c clavel -n "__fish_clavel_using_subcommand key; and not __fish_seen_subcommand_from generate public help" -s h -l help -d 'Print help'
complete -c clavel -n "__fish_clavel_using_subcommand key; and not __fish_seen_subcommand_from generate public help" -f -a "generate" -d 'Make a secret key in Nix\'s format. Its file is readable by its owner alone; its public half is printed'
complete -c clavel -n "__fish_clavel_using_subcommand key; and not __fish_seen_subcommand_from generate public help" -f -a "public" -d 'Print the public half of a secret key, for `trusted-public-keys`'
complete -c clavel -n "__fish_clavel_using_subcommand key; and not __fish_seen_subcommand_from generate public help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c clavel -n "__fish_clavel_using_subcommand key; and __fish_seen_subcommand_from generate" -s o -l output -d 'The file to write it to. One that is there already is left as it is' -r -F
complete -c clavel -n "__fish_clavel_using_subcommand key; and __fish_seen_subcommand_from generate" -s v -l verbose -d 'Say on standard error which programs are run; twice, say more'
complete -c clavel -n "__fish_clavel_using_subcommand key; and __fish_seen_subcommand_from generate" -s h -l help -d 'Print help'
complete -c clavel -n "__fish_clavel_using_subcommand key; and __fish_seen_subcommand_from public" -s v -l verbose -d 'Say on standard error which programs are run; twice, say more'
complete -c clavel -n "__fish_clavel_using_subcommand key; and __fish_seen_subcommand_from public" -s h -l help -d 'Print help'
complete -c clavel -n "__fish_clavel_using_subcommand key; and __fish_seen_subcommand_from help" -f -a "generate" -d 'Make a secret key in Nix\'s format. Its file is readable by its owner alone; its public half is printed'
complete -c clavel -n "__fish_clavel_using_subcommand key; and __fish_seen_subcommand_from help" -f -a "public" -d 'Print the public half of a secret key, for `trusted-public-keys`'
complete -c clavel -n "__fish_clavel_using_subcommand key; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c clavel -n "__fish_clavel_using_subcommand list" -l repository -d 'The repository: a path, or a URL that is fetched from' -r
complete -c clavel -n "__fish_clavel_using_subcommand list" -l branch -d 'The branch' -r
complete -c clavel -n "__fish_clavel_using_subcommand list" -l trusted-public-key -d 'A key that has to have signed what is shown; may be given more than once' -r
complete -c clavel -n "__fish_clavel_using_subcommand list" -l json -d 'Print one JSON document: a list of the deployments, as they are signed'
complete -c clavel -n "__fish_clavel_using_subcommand list" -s v -l verbose -d 'Say on standard error which programs are run; twice, say more'
complete -c clavel -n "__fish_clavel_using_subcommand list" -s h -l help -d 'Print help'
complete -c clavel -n "__fish_clavel_using_subcommand diff" -l from -d 'The revision to compare with; the one before the other, where none is named' -r
complete -c clavel -n "__fish_clavel_using_subcommand diff" -l to -d 'The revision to look at; the newest, where none is named' -r
complete -c clavel -n "__fish_clavel_using_subcommand diff" -l repository -d 'The repository: a path, or a URL that is fetched from' -r
complete -c clavel -n "__fish_clavel_using_subcommand diff" -l branch -d 'The branch' -r
complete -c clavel -n "__fish_clavel_using_subcommand diff" -l trusted-public-key -d 'A key that has to have signed what is shown; may be given more than once' -r
complete -c clavel -n "__fish_clavel_using_subcommand diff" -l json -d 'Print one JSON document'
complete -c clavel -n "__fish_clavel_using_subcommand diff" -s v -l verbose -d 'Say on standard error which programs are run; twice, say more'
complete -c clavel -n "__fish_clavel_using_subcommand diff" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c clavel -n "__fish_clavel_using_subcommand show" -l kind -d 'Which kind of document' -r -f -a "deployment\t''
unit\t''
agent\t''"
complete -c clavel -n "__fish_clavel_using_subcommand show" -l repository -d 'The repository: a path, or a URL that is fetched from' -r
complete -c clavel -n "__fish_clavel_using_subcommand show" -l branch -d 'The branch' -r
complete -c clavel -n "__fish_clavel_using_subcommand show" -l trusted-public-key -d 'A key that has to have signed what is shown; may be given more than once' -r
complete -c clavel -n "__fish_clavel_using_subcommand show" -l json -d 'Print the document as JSON, without its signatures'
complete -c clavel -n "__fish_clavel_using_subcommand show" -s v -l verbose -d 'Say on standard error which programs are run; twice, say more'
complete -c clavel -n "__fish_clavel_using_subcommand show" -s h -l help -d 'Print help'
complete -c clavel -n "__fish_clavel_using_subcommand verify" -l repository -d 'The repository: a path, or a URL that is fetched from' -r
complete -c clavel -n "__fish_clavel_using_subcommand verify" -l branch -d 'The branch' -r
complete -c clavel -n "__fish_clavel_using_subcommand verify" -l trusted-public-key -d 'A key that has to have signed what is shown; may be given more than once' -r
complete -c clavel -n "__fish_clavel_using_subcommand verify" -l json -d 'Print one JSON document'
complete -c clavel -n "__fish_clavel_using_subcommand verify" -s v -l verbose -d 'Say on standard error which programs are run; twice, say more'
complete -c clavel -n "__fish_clavel_using_subcommand verify" -s h -l help -d 'Print help'
complete -c clavel -n "__fish_clavel_using_subcommand help; and not __fish_seen_subcommand_from key list diff show verify help" -f -a "key" -d 'Make keys, and show their public half'
complete -c clavel -n "__fish_clavel_using_subcommand help; and not __fish_seen_subcommand_from key list diff show verify help" -f -a "list" -d 'List the deployments on a branch'
complete -c clavel -n "__fish_clavel_using_subcommand help; and not __fish_seen_subcommand_from key list diff show verify help" -f -a "diff" -d 'Tell what differs between two revisions of a deployment, down to packages and files'
complete -c clavel -n "__fish_clavel_using_subcommand help; and not __fish_seen_subcommand_from key list diff show verify help" -f -a "show" -d 'Show one document of a branch'
complete -c clavel -n "__fish_clavel_using_subcommand help; and not __fish_seen_subcommand_from key list diff show verify help" -f -a "verify" -d 'Verify everything on a branch, as an agent would'
complete -c clavel -n "__fish_clavel_using_subcommand help; and not __fish_seen_subcommand_from key list diff show verify help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c clavel -n "__fish_clavel_using_subcommand help; and __fish_seen_subcommand_from key" -f -a "generate" -d 'Make a secret key in Nix\'s format. Its file is readable by its owner alone; its public half is printed'
complete -c clavel -n "__fish_clavel_using_subcommand help; and __fish_seen_subcommand_from key" -f -a "public" -d 'Print the public half of a secret key, for `trusted-public-keys`'
