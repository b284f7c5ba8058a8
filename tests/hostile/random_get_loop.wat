;; outcome: timed_out; tries: to ask for random numbers without end, as many as fit in its memory
(func (export "_start")
  (drop (memory.grow (i32.const 900)))
  (loop $again (drop (call $random_get (i32.const 131072) (i32.const 58000000))) (br $again)))
