;; outcome: timed_out; tries: to compute before its entry is called, while it is made
(func $first (loop $again (br $again)))
(start $first)
(func (export "_start"))
