;; outcome: bad_output; tries: a second name of the parameters in the place of the metadiff
(func (export "_start")
  (call $must_work (call $link (global.get $scratch) (call $args_name) (global.get $scratch) (call $metadiff_name))))
