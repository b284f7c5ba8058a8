;; outcome: timed_out; tries: to give way without end
(func (export "_start")
  (loop $again (drop (call $sched_yield)) (br $again)))
