complete --keep-order --exclusive --command plumb --arguments "(COMPLETE=fish plumb -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token))"
