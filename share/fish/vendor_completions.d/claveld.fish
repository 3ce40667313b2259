# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_claveld_global_optspecs
    string join \n v/verbose h/help V/version
end

function __fish_claveld_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_claveld_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_claveld_using_subcommand
    set -l cmd (__fish_claveld_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c claveld -n "__fish_claveld_needs_command" -s v -l verbose -d 'Log to standard error which programs are run; given twice, log more'
complete -c claveld -n "__fish_claveld_needs_command" -s h -l help -d 'Print help'
complete -c claveld -n "__fish_claveld_needs_command" -s V -l version -d 'Print version'
complete -c claveld -n "__fish_claveld_needs_command" -f -a "run" -d 'Evaluate and publish all sources, again whenever one changes, until SIGTERM or SIGINT; SIGHUP reads the configuration anew'
complete -c claveld -n "__fish_claveld_needs_command" -f -a "once" -d 'Evaluate all sources once, and publish the changes'
complete -c claveld -n "__fish_claveld_needs_command" -f -a "evaluate" -d 'Show the deployments of a flake, and publish nothing'
complete -c claveld -n "__fish_claveld_needs_command" -f -a "status" -d 'Show whether evaluations are isolated, where the key is, how each source was at its last round, and how each mirror is'
complete -c claveld -n "__fish_claveld_needs_command" -f -a "check" -d 'Look at the whole set-up, and say what is wrong with it. Nothing is published, and no state is written'
complete -c claveld -n "__fish_claveld_needs_command" -f -a "hook" -d 'Run as a git hook: check a push before git accepts it, or evaluate and publish it afterwards'
complete -c claveld -n "__fish_claveld_needs_command" -f -a "learn" -d 'Push the branch on to the mirrors, and make the checks that are open, for the next evaluation. The hooks leave this behind'
complete -c claveld -n "__fish_claveld_needs_command" -f -a "signer" -d 'Hold claveld\'s key in a process of its own, and sign with it the documents that claveld sends to a socket; nothing else'
complete -c claveld -n "__fish_claveld_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c claveld -n "__fish_claveld_using_subcommand run" -l config -d 'The configuration file' -r -F
complete -c claveld -n "__fish_claveld_using_subcommand run" -s v -l verbose -d 'Log to standard error which programs are run; given twice, log more'
complete -c claveld -n "__fish_claveld_using_subcommand run" -s h -l help -d 'Print help'
complete -c claveld -n "__fish_claveld_using_subcommand once" -l config -d 'The configuration file' -r -F
complete -c claveld -n "__fish_claveld_using_subcommand once" -l allow-withdrawals -d 'Withdraw as many documents as this, where their sources do not give them any more. Without it claveld withdraws few of them at once, and says how many wait' -r
complete -c claveld -n "__fish_claveld_using_subcommand once" -l json -d 'Print one JSON document: the report, the broken attributes, and the sources that are broken as a whole'
complete -c claveld -n "__fish_claveld_using_subcommand once" -l full -d 'Evaluate everything, and compare the results with the records'
complete -c claveld -n "__fish_claveld_using_subcommand once" -s v -l verbose -d 'Log to standard error which programs are run; given twice, log more'
complete -c claveld -n "__fish_claveld_using_subcommand once" -s h -l help -d 'Print help'
complete -c claveld -n "__fish_claveld_using_subcommand evaluate" -l timeout -d 'The longest time that one run of Nix may take' -r
complete -c claveld -n "__fish_claveld_using_subcommand evaluate" -l source-timeout -d 'The longest time that the whole evaluation may take' -r
complete -c claveld -n "__fish_claveld_using_subcommand evaluate" -l processes -d 'The number of hosts to evaluate at the same time [default: the machine\'s processors]' -r
complete -c claveld -n "__fish_claveld_using_subcommand evaluate" -l memory -d 'The most memory for all evaluations together, such as 4GiB [default: three quarters of the machine\'s]' -r
complete -c claveld -n "__fish_claveld_using_subcommand evaluate" -l isolation -d '`cage` keeps the flake from everything but the store; `none` is for a flake that you wrote yourself' -r -f -a "cage\t''
none\t''"
complete -c claveld -n "__fish_claveld_using_subcommand evaluate" -l input -d 'Let inputs come from here: `https`, `path`, `https://git.lan`. May be given more than once [default: https, ssh, git, github, gitlab, sourcehut]' -r
complete -c claveld -n "__fish_claveld_using_subcommand evaluate" -l include -d 'Take only deployments whose name matches: `web-*`, `homeConfigurations.*`. May be given more than once' -r
complete -c claveld -n "__fish_claveld_using_subcommand evaluate" -l exclude -d 'Leave out deployments whose name matches. May be given more than once' -r
complete -c claveld -n "__fish_claveld_using_subcommand evaluate" -l records -d 'Keep records in this folder, and evaluate only what changed since the last time' -r -F
complete -c claveld -n "__fish_claveld_using_subcommand evaluate" -l json -d 'Print one JSON document, with the documents as they would be on the branch, unsigned'
complete -c claveld -n "__fish_claveld_using_subcommand evaluate" -l full -d 'Evaluate everything, and compare the results with the records'
complete -c claveld -n "__fish_claveld_using_subcommand evaluate" -s v -l verbose -d 'Log to standard error which programs are run; given twice, log more'
complete -c claveld -n "__fish_claveld_using_subcommand evaluate" -s h -l help -d 'Print help'
complete -c claveld -n "__fish_claveld_using_subcommand status" -l config -d 'The configuration file' -r -F
complete -c claveld -n "__fish_claveld_using_subcommand status" -l json -d 'Print one JSON document'
complete -c claveld -n "__fish_claveld_using_subcommand status" -l check -d 'Exit with 1 if evaluations are not isolated as configured, a source or a part of one was broken at its last round, or a mirror has another history, and with 9 if the only trouble is that a source\'s server does not answer or a mirror is behind'
complete -c claveld -n "__fish_claveld_using_subcommand status" -s v -l verbose -d 'Log to standard error which programs are run; given twice, log more'
complete -c claveld -n "__fish_claveld_using_subcommand status" -s h -l help -d 'Print help'
complete -c claveld -n "__fish_claveld_using_subcommand check" -l config -d 'The configuration file' -r -F
complete -c claveld -n "__fish_claveld_using_subcommand check" -l json -d 'Print one JSON document'
complete -c claveld -n "__fish_claveld_using_subcommand check" -s q -l quiet -d 'Print only warnings, problems and the summary'
complete -c claveld -n "__fish_claveld_using_subcommand check" -s v -l verbose -d 'Log to standard error which programs are run; given twice, log more'
complete -c claveld -n "__fish_claveld_using_subcommand check" -s h -l help -d 'Print help'
complete -c claveld -n "__fish_claveld_using_subcommand hook" -l config -d 'The configuration file' -r -F
complete -c claveld -n "__fish_claveld_using_subcommand hook" -s v -l verbose -d 'Log to standard error which programs are run; given twice, log more'
complete -c claveld -n "__fish_claveld_using_subcommand hook" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c claveld -n "__fish_claveld_using_subcommand learn" -l config -d 'The configuration file' -r -F
complete -c claveld -n "__fish_claveld_using_subcommand learn" -l after -d 'The process to wait for' -r
complete -c claveld -n "__fish_claveld_using_subcommand learn" -l within -d 'The most seconds to work' -r
complete -c claveld -n "__fish_claveld_using_subcommand learn" -s v -l verbose -d 'Log to standard error which programs are run; given twice, log more'
complete -c claveld -n "__fish_claveld_using_subcommand learn" -s h -l help -d 'Print help'
complete -c claveld -n "__fish_claveld_using_subcommand signer" -l secret-key-file -d 'The file of the key, which belongs to this user or to root, and which nobody else can read' -r -F
complete -c claveld -n "__fish_claveld_using_subcommand signer" -l secret-key-credential -d 'The systemd credential that is the key' -r
complete -c claveld -n "__fish_claveld_using_subcommand signer" -l socket -d 'The socket to make, for this user alone. Without it, systemd has to pass one (`claveld-signer.socket`)' -r -F
complete -c claveld -n "__fish_claveld_using_subcommand signer" -s v -l verbose -d 'Log to standard error which programs are run; given twice, log more'
complete -c claveld -n "__fish_claveld_using_subcommand signer" -s h -l help -d 'Print help'
complete -c claveld -n "__fish_claveld_using_subcommand help; and not __fish_seen_subcommand_from run once evaluate status check hook learn signer help" -f -a "run" -d 'Evaluate and publish all sources, again whenever one changes, until SIGTERM or SIGINT; SIGHUP reads the configuration anew'
complete -c claveld -n "__fish_claveld_using_subcommand help; and not __fish_seen_subcommand_from run once evaluate status check hook learn signer help" -f -a "once" -d 'Evaluate all sources once, and publish the changes'
complete -c claveld -n "__fish_claveld_using_subcommand help; and not __fish_seen_subcommand_from run once evaluate status check hook learn signer help" -f -a "evaluate" -d 'Show the deployments of a flake, and publish nothing'
complete -c claveld -n "__fish_claveld_using_subcommand help; and not __fish_seen_subcommand_from run once evaluate status check hook learn signer help" -f -a "status" -d 'Show whether evaluations are isolated, where the key is, how each source was at its last round, and how each mirror is'
complete -c claveld -n "__fish_claveld_using_subcommand help; and not __fish_seen_subcommand_from run once evaluate status check hook learn signer help" -f -a "check" -d 'Look at the whole set-up, and say what is wrong with it. Nothing is published, and no state is written'
complete -c claveld -n "__fish_claveld_using_subcommand help; and not __fish_seen_subcommand_from run once evaluate status check hook learn signer help" -f -a "hook" -d 'Run as a git hook: check a push before git accepts it, or evaluate and publish it afterwards'
complete -c claveld -n "__fish_claveld_using_subcommand help; and not __fish_seen_subcommand_from run once evaluate status check hook learn signer help" -f -a "learn" -d 'Push the branch on to the mirrors, and make the checks that are open, for the next evaluation. The hooks leave this behind'
complete -c claveld -n "__fish_claveld_using_subcommand help; and not __fish_seen_subcommand_from run once evaluate status check hook learn signer help" -f -a "signer" -d 'Hold claveld\'s key in a process of its own, and sign with it the documents that claveld sends to a socket; nothing else'
complete -c claveld -n "__fish_claveld_using_subcommand help; and not __fish_seen_subcommand_from run once evaluate status check hook learn signer help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
