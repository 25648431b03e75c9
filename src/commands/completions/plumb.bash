_plumb() {
    # bash ends words at ":" and "=", which targets and options have inside. plumb is given the words
    # as they were typed, and of its answers what bash takes for done is cut off.
    local IFS=$'\013' line="${COMP_LINE:0:COMP_POINT}" words
    IFS=$' \t\n' read -ra words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    local word="${words[-1]}"
    COMPREPLY=($(_CLAP_IFS="$IFS" _CLAP_COMPLETE_INDEX="$((${#words[@]} - 1))" _CLAP_COMPLETE_COMP_TYPE="$COMP_TYPE" \
        _CLAP_COMPLETE_SPACE=false COMPLETE=bash plumb -- "${words[@]}")) || unset COMPREPLY
    local typed="${word%"${word##*[:=]}"}"
    [[ -n $typed && $COMP_WORDBREAKS == *"${typed: -1}"* ]] && COMPREPLY=("${COMPREPLY[@]#"$typed"}")
    [[ "${COMPREPLY-}" =~ [=/:]$ ]] && compopt -o nospace
}
complete -o bashdefault -o nosort -F _plumb plumb
