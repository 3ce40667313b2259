# Lays a Debian into a folder, for scripts/machine and scripts/power, which read this file.
# shellcheck shell=bash

cannot() {
    echo "scripts/${0##*/}: $*" >&2
    exit 3
}

# Lays the Debian of this machine's release into FOLDER, with these packages (separated by commas), from the mirror that apt is
# configured with. Then it calls the function FINISH with the folder. A complete folder is left as it is, until the packages, FINISH or
# the text MORE is another one. WHAT and SIZE are for who waits.
lay_debian() { # FOLDER PACKAGES WHAT SIZE MORE FINISH
    local folder=$1 names=$2 what=$3 size=$4 more=$5 finish=$6 suite mirror recipe
    # shellcheck disable=SC1091
    suite=$(. /etc/os-release && echo "${VERSION_CODENAME-}")
    # shellcheck disable=SC2016
    mirror=$(apt-get indextargets --format '$(ORIGIN)|$(CODENAME)|$(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
        sed -n "s/^Debian|$suite|//p" | head -n 1)
    [[ -n $mirror ]] || cannot "apt has no mirror of Debian ${suite:-(this system names no release)}: run apt-get update"
    recipe="$suite $names $(printf '%s' "$(declare -f lay_debian "$finish")$more" | sha256sum)"
    if [[ -e $folder.complete && $(<"$folder.complete") == "$recipe" ]]; then return 0; fi
    echo "laying $what $suite into $folder ($size from $mirror)" >&2
    rm -rf "$folder" "$folder.complete"
    mkdir -p "$(dirname "$folder")"
    mmdebstrap --quiet --mode=root --variant=minbase --include="$names" "$suite" "$folder" "$mirror" >&2 ||
        cannot "mmdebstrap could not make it; its output is above"
    "$finish" "$folder"
    echo "$recipe" >"$folder.complete"
}
