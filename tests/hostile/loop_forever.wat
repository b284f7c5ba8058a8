;; outcome: timed_out; tries: to compute without end
(func (export "_start")
  (loop $again (br $again)))
