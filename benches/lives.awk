# The least that can be called a join: DTrace's creates with its own exits, by pid. Prints creates, exits and pairs.
$1 == "C" { created[$4] = $5; creates++ }
$1 == "X" { if ($4 in created) { pairs++; delete created[$4] } exits++ }
END { print creates + 0, exits + 0, pairs + 0 }
