# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_clavel_agent_global_optspecs
    string join \n v/verbose h/help V/version
end

function __fish_clavel_agent_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_clavel_agent_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_clavel_agent_using_subcommand
    set -l cmd (__fish_clavel_agent_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c clavel-agent -n "__fish_clavel_agent_needs_command" -s v -l verbose -d 'Log to standard error which programs are run; given twice, log more'
complete -c clavel-agent -n "__fish_clavel_agent_needs_command" -s h -l help -d 'Print help'
complete -c clavel-agent -n "__fish_clavel_agent_needs_command" -s V -l version -d 'Print version'
complete -c clavel-agent -n "__fish_clavel_agent_needs_command" -f -a "run" -d 'Run one pass after another until SIGTERM or SIGINT; SIGHUP reads the configuration anew'
complete -c clavel-agent -n "__fish_clavel_agent_needs_command" -f -a "once" -d 'Run one pass'
complete -c clavel-agent -n "__fish_clavel_agent_needs_command" -f -a "status" -d 'Show what runs, and the result of the last pass'
complete -c clavel-agent -n "__fish_clavel_agent_needs_command" -f -a "confirm" -d 'Confirm the revision that is on probation, where its deployment or this machine asks a person to'
complete -c clavel-agent -n "__fish_clavel_agent_needs_command" -f -a "retry" -d 'Let revisions that are held because they failed begin again, with the next pass of the agent'
complete -c clavel-agent -n "__fish_clavel_agent_needs_command" -f -a "plan" -d 'Say what the next pass would do: which revisions, packages and units change, and whether the machine has to boot. Nothing is fetched into the store or activated, and no state is written'
complete -c clavel-agent -n "__fish_clavel_agent_needs_command" -f -a "check" -d 'Look at the whole set-up, and say what is wrong with it. Nothing is fetched into the store or activated, and no state is written'
complete -c clavel-agent -n "__fish_clavel_agent_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c clavel-agent -n "__fish_clavel_agent_using_subcommand run" -l config -d 'The configuration file' -r -F
complete -c clavel-agent -n "__fish_clavel_agent_using_subcommand run" -s v -l verbose -d 'Log to standard error which programs are run; given twice, log more'
complete -c clavel-agent -n "__fish_clavel_agent_using_subcommand run" -s h -l help -d 'Print help'
complete -c clavel-agent -n "__fish_clavel_agent_using_subcommand once" -l config -d 'The configuration file' -r -F
complete -c clavel-agent -n "__fish_clavel_agent_using_subcommand once" -l json -d 'Print the result for each deployment as one JSON document'
complete -c clavel-agent -n "__fish_clavel_agent_using_subcommand once" -s v -l verbose -d 'Log to standard error which programs are run; given twice, log more'
complete -c clavel-agent -n "__fish_clavel_agent_using_subcommand once" -s h -l help -d 'Print help'
complete -c clavel-agent -n "__fish_clavel_agent_using_subcommand status" -l config -d 'The configuration file' -r -F
complete -c clavel-agent -n "__fish_clavel_agent_using_subcommand status" -l json -d 'Print one JSON document'
complete -c clavel-agent -n "__fish_clavel_agent_using_subcommand status" -l oneline -d 'Print one line, for a prompt or a bar'
complete -c clavel-agent -n "__fish_clavel_agent_using_subcommand status" -s v -l verbose -d 'Log to standard error which programs are run; given twice, log more'
complete -c clavel-agent -n "__fish_clavel_agent_using_subcommand status" -s h -l help -d 'Print help'
complete -c clavel-agent -n "__fish_clavel_agent_using_subcommand confirm" -l config -d 'The configuration file' -r -F
complete -c clavel-agent -n "__fish_clavel_agent_using_subcommand confirm" -s v -l verbose -d 'Log to standard error which programs are run; given twice, log more'
complete -c clavel-agent -n "__fish_clavel_agent_using_subcommand confirm" -s h -l help -d 'Print help'
complete -c clavel-agent -n "__fish_clavel_agent_using_subcommand retry" -l config -d 'The configuration file' -r -F
complete -c clavel-agent -n "__fish_clavel_agent_using_subcommand retry" -s v -l verbose -d 'Log to standard error which programs are run; given twice, log more'
complete -c clavel-agent -n "__fish_clavel_agent_using_subcommand retry" -s h -l help -d 'Print help'
complete -c clavel-agent -n "__fish_clavel_agent_using_subcommand plan" -l config -d 'The configuration file' -r -F
complete -c clavel-agent -n "__fish_clavel_agent_using_subcommand plan" -l json -d 'Print one JSON document'
complete -c clavel-agent -n "__fish_clavel_agent_using_subcommand plan" -s v -l verbose -d 'Log to standard error which programs are run; given twice, log more'
complete -c clavel-agent -n "__fish_clavel_agent_using_subcommand plan" -s h -l help -d 'Print help'
complete -c clavel-agent -n "__fish_clavel_agent_using_subcommand check" -l config -d 'The configuration file' -r -F
complete -c clavel-agent -n "__fish_clavel_agent_using_subcommand check" -l json -d 'Print one JSON document'
complete -c clavel-agent -n "__fish_clavel_agent_using_subcommand check" -s q -l quiet -d 'Print only warnings, problems and the summary'
complete -c clavel-agent -n "__fish_clavel_agent_using_subcommand check" -s v -l verbose -d 'Log to standard error which programs are run; given twice, log more'
complete -c clavel-agent -n "__fish_clavel_agent_using_subcommand check" -s h -l help -d 'Print help'
complete -c clavel-agent -n "__fish_clavel_agent_using_subcommand help; and not __fish_seen_subcommand_from run once status confirm retry plan check help" -f -a "run" -d 'Run one pass after another until SIGTERM or SIGINT; SIGHUP reads the configuration anew'
complete -c clavel-agent -n "__fish_clavel_agent_using_subcommand help; and not __fish_seen_subcommand_from run once status confirm retry plan check help" -f -a "once" -d 'Run one pass'
complete -c clavel-agent -n "__fish_clavel_agent_using_subcommand help; and not __fish_seen_subcommand_from run once status confirm retry plan check help" -f -a "status" -d 'Show what runs, and the result of the last pass'
complete -c clavel-agent -n "__fish_clavel_agent_using_subcommand help; and not __fish_seen_subcommand_from run once status confirm retry plan check help" -f -a "confirm" -d 'Confirm the revision that is on probation, where its deployment or this machine asks a person to'
complete -c clavel-agent -n "__fish_clavel_agent_using_subcommand help; and not __fish_seen_subcommand_from run once status confirm retry plan check help" -f -a "retry" -d 'Let revisions that are held because they failed begin again, with the next pass of the agent'
complete -c clavel-agent -n "__fish_clavel_agent_using_subcommand help; and not __fish_seen_subcommand_from run once status confirm retry plan check help" -f -a "plan" -d 'Say what the next pass would do: which revisions, packages and units change, and whether the machine has to boot. Nothing is fetched into the store or activated, and no state is written'
complete -c clavel-agent -n "__fish_clavel_agent_using_subcommand help; and not __fish_seen_subcommand_from run once status confirm retry plan check help" -f -a "check" -d 'Look at the whole set-up, and say what is wrong with it. Nothing is fetched into the store or activated, and no state is written'
complete -c clavel-agent -n "__fish_clavel_agent_using_subcommand help; and not __fish_seen_subcommand_from run once status confirm retry plan check help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
