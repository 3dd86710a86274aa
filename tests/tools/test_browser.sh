#!/bin/sh
# The page of `diptych inspect --html` in a real browser: its pictures are seen, hostile captions are
# text, no script runs, nothing is asked of the network. The same checks must then say no to the page
# with its escapes undone. Needs Debian's chromium; without it the test is skipped (exit 77).
# Usage: sh test_browser.sh path/to/diptych scratch-dir
. "$(dirname "$0")/../check.sh"
pixels=$(dirname "$diptych")/tests/pixels
command -v chromium >/dev/null 2>&1 ||
    skip "there is no chromium: the page that inspect --html writes was seen by nobody"
cd "$scratch" || exit 1
mkdir members
export HOME="$scratch"

# Three pictures of one colour each, one that is broken; words that try to be more than words.
owned=00ff7f # the page's background if a script of a caption has run
cd members || exit 1
"$pixels" make a.png 100 80 d01040 || exit 1
"$pixels" make '"><script>b.png' 100 80 1060d0 || exit 1
"$pixels" make c.png 60 100 40a010 || exit 1
head -c 60 a.png >d.png
script="document.title='owned';document.documentElement.style.background='#$owned';"
script="$script document.body.style.background='#$owned'"
printf '%s\n' "<script>$script</script>" \
    "<img src='http://diptych.invalid/1.png' onerror=\"$script\">" >a.txt
printf '%s\n' "</p></li></ul><style>@import url(http://diptych.invalid/2.css);</style>" \
    "<iframe src=\"javascript:parent.$script\"></iframe>" >'"><script>b.txt'
printf 'control \001\033[31m \302\205 \342\200\256desrever \327\251\327\234\327\225\327\235 &amp;' >c.txt
printf 'broken picture' >d.txt
LC_ALL=C tar -cf ../shard.tar --sort=name -- * || exit 1
cd ..
"$diptych" inspect --shards shard.tar --html page.html >out 2>err || complain "inspect: $(cat err)"

# look NAME: show NAME.html; leaves NAME.dom, NAME.png and NAME.net, what it asked for
look()
{
    for what in "--dump-dom" "--screenshot=$scratch/$1.png"; do
        timeout 120 chromium --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage \
            --disable-background-networking --host-resolver-rules="MAP * ~NOTFOUND" \
            --user-data-dir="$scratch/profile" --force-device-scale-factor=1 --hide-scrollbars \
            --window-size=900,1400 "--log-net-log=$scratch/net.json" "$what" \
            "file://$scratch/$1.html" >"$1.out" 2>"$1.err" ||
            complain "chromium: exit $?: $(tail -n 3 "$1.err")"
        [ "$what" != --dump-dom ] || mv "$1.out" "$1.dom"
    done
    # The browser's own questions to its maker are not the page's.
    grep -o '"url":"[a-z]*://[^"]*"' net.json | sort -u |
        grep -vE '"(file|chrome|chrome-extension)://|://[a-z0-9.]*(google|googleapis|gvt1|gstatic)\.com' \
            >"$1.net"
}

seen() { "$pixels" count "$1.png" "$2"; }
scripts() { grep -c '<script' "$1.dom"; }

look page
for colour in d01040 1060d0; do
    [ "$(seen page $colour)" -eq 8000 ] ||
        complain "$(seen page $colour) pixels of the picture #$colour are seen, not 8000"
done
[ "$(seen page 40a010)" -eq 6000 ] || complain "the third picture is not seen"
[ "$(seen page $owned)" -eq 0 ] || complain "a caption's script has painted the page"
[ "$(scripts page)" -eq 0 ] || complain "there is a script in the page: $(grep '<script' page.dom)"
[ ! -s page.net ] || complain "the page asked for $(cat page.net)"
grep -q '<title>shard.tar</title>' page.dom || complain "title: $(grep '<title' page.dom)"
[ "$(grep -c '<img' page.dom)" -eq 3 ] || complain "not three pictures: $(grep -c '<img' page.dom)"
for text in '&lt;script&gt;document.title=' '&lt;img src=' '&lt;/p&gt;&lt;/li&gt;' '&lt;iframe' \
    '"&gt;&lt;script&gt;b' 'control \x01\x1b[31m \xc2\x85' '&amp;amp;' 'broken picture'; do
    grep -qF -- "$text" page.dom || complain "\"$text\" is not shown as text"
done

# Undo the escapes: the policy in the head alone must still hold everything off.
sed 's/&#60;/</g; s/&#62;/>/g; s/&#34;/"/g' page.html | sed "s/&#39;/'/g" >unescaped.html
look unescaped
[ "$(seen unescaped $owned)" -eq 0 ] || complain "the policy let a script run"
[ ! -s unescaped.net ] || complain "the policy let the page ask for $(cat unescaped.net)"
[ "$(scripts unescaped)" -gt 0 ] || complain "a script in the page would not be noticed"

# Without escapes and policy the script runs and the request is made, and both are noticed.
grep -v Content-Security-Policy unescaped.html >naked.html
look naked
[ "$(seen naked $owned)" -gt 0 ] || complain "a script that runs would not be noticed"
grep -q diptych.invalid naked.net || complain "a request would not be noticed: $(cat naked.net)"

# A page for the dark and for a phone: no wider than the window, which a picture at its right end
# would show; the same pictures.
sed 's/<body>/<body style="border-right: 2px solid #c0ffee">/' page.html >phone.html
timeout 120 chromium --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage \
    --host-resolver-rules="MAP * ~NOTFOUND" --user-data-dir="$scratch/profile" --hide-scrollbars \
    --force-device-scale-factor=1 --blink-settings=preferredColorScheme=0 --window-size=500,2400 \
    "--screenshot=$scratch/phone.png" "file://$scratch/phone.html" >phone.out 2>&1
[ "$(seen phone d01040)" -eq 8000 ] || complain "dark and narrow, a picture is not seen whole"
[ "$(seen phone c0ffee)" -ge 1000 ] || complain "the page is wider than a narrow window"
[ "$(seen phone ffffff)" -lt 100000 ] || complain "the dark page is white"

finish "the page in a browser"
