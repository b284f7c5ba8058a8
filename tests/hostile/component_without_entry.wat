;; outcome: refused; tries: a component that exports nothing to run
(component (core module))
