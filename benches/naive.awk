# What an operator would write first: join both witnesses by pid, as they come. Knows no incarnations, no blind windows,
# no settle time, no trees. Prints creates, exits, births and deaths on which both agree.
$1 == "C" {
    creates++
    if ($4 in child) { births += child[$4] == $5; delete child[$4] } else created[$4] = $5
}
$1 == "X" {
    exits++
    if ($4 in exit_note) { deaths += exit_note[$4] == $7; delete exit_note[$4] } else exited[$4] = $7
}
$1 == "N" && $3 == "CHILD" {
    if ($2 in created) { births += created[$2] == $4; delete created[$2] } else child[$2] = $4
}
$1 == "N" && $3 == "EXIT" {
    if ($2 in exited) { deaths += exited[$2] == $4; delete exited[$2] } else exit_note[$2] = $4
}
END { print creates + 0, exits + 0, births + 0, deaths + 0 }
