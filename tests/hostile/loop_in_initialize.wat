;; outcome: timed_out; tries: the entry of ITK modules, with an _initialize that never ends
(func (export "_initialize") (loop $again (br $again)))
(func (export ""))
