;; outcome: trapped; tries: to use up the stack before its entry is called
(func $deeper (call $deeper) (call $deeper))
(start $deeper)
(func (export "_start"))
