/**
 * The script of the page. Its first functions need no document, and are tested without one; what a model says only ever becomes text.
 */
export const script: string = String.raw`"use strict";
function takeEvents(buffer){
  var parts=buffer.split(/\r?\n\r?\n/),rest=parts.pop(),events=[];
  parts.forEach(function(part){
    var data=part.split(/\r?\n/).filter(function(line){return line.indexOf("data:")===0})
      .map(function(line){return line.slice(5).replace(/^ /,"")}).join("\n");
    if(data!==""&&data!=="[DONE]")events.push(JSON.parse(data));
  });
  return {events:events,rest:rest};
}
function bytes(n){
  var units=["B","KiB","MiB","GiB"],at=0;
  while(n>=1024&&at<units.length-1){n/=1024;at+=1}
  return (at===0?String(n):n.toFixed(1))+" "+units[at];
}
function bodyOf(model,picture,question,method,keep,tokens){
  var content=[{type:"text",text:question}];
  if(picture)content.unshift({type:"image_url",image_url:{url:picture}});
  var body={model:model,messages:[{role:"user",content:content}],max_tokens:tokens};
  if(method)body.prefixkv={method:method,keep:keep};
  return body;
}
function facts(cache,tokens,seconds){
  var saved=cache.full_bytes>0?1-cache.resident_bytes/cache.full_bytes:0;
  return [["first token",cache.ttft_ms===null?"-":Math.round(cache.ttft_ms)+" ms"],
    ["speed",tokens>1&&seconds>0?((tokens-1)/seconds).toFixed(1)+" tokens/s":"-"],
    ["cache",bytes(cache.resident_bytes)+" of "+bytes(cache.full_bytes)],
    ["memory saved",Math.max(0,Math.round(saved*100))+" %"],
    ["entries kept",Math.round(cache.kept*100)+" %"]];
}
function keptShare(cells){return cells.length?cells.reduce(function(sum,share){return sum+share},0)/cells.length:0}
function start(){
  var $=function(id){return document.getElementById(id)},picture=null,model=null,control=null;
  function make(name,parent,text){var made=document.createElement(name);if(text!==undefined)made.textContent=text;parent.appendChild(made);return made}
  function say(text,bad){$("status").textContent=text;$("status").className=bad?"bad":""}
  function ask(path,body,signal){
    var headers={"content-type":"application/json"},key=$("key").value;
    if(key)headers.authorization="Bearer "+key;
    return fetch(path,{method:body?"POST":"GET",headers:headers,body:body?JSON.stringify(body):undefined,signal:signal}).then(function(answer){
      if(answer.ok)return answer;
      return answer.json().catch(function(){return {}}).then(function(told){
        throw new Error(told.error?told.error.message:"the server answered "+answer.status)})});
  }
  function meet(){
    return ask("v1/models").then(function(answer){return answer.json()}).then(function(list){
      model=list.data[0].id;$("model").textContent="Model "+model+", "+list.data[0].max_model_len+" positions";say("")});
  }
  function show(file){
    if(!file||!/^image\//.test(file.type)){say("That is no picture.",true);return}
    var reader=new FileReader();
    reader.onload=function(){
      var image=new Image();
      image.onerror=function(){say("The picture cannot be read.",true)};
      image.onload=function(){
        var most=2048,scale=Math.min(1,most/Math.max(image.width,image.height)),url=reader.result;
        if(scale<1){
          var canvas=document.createElement("canvas");
          canvas.width=Math.round(image.width*scale);canvas.height=Math.round(image.height*scale);
          canvas.getContext("2d").drawImage(image,0,0,canvas.width,canvas.height);
          url=canvas.toDataURL("image/jpeg",0.92);
        }
        picture=url;$("preview").src=url;$("preview").alt="The picture: "+(file.name||"pasted");
        $("preview").hidden=false;$("forget").hidden=false;$("hint").textContent=(file.name||"pasted picture")+", "+image.width+" x "+image.height;
        say("The picture is there.");
      };
      image.src=reader.result;
    };
    reader.readAsDataURL(file);
  }
  function forget(){picture=null;$("preview").hidden=true;$("forget").hidden=true;$("file").value="";$("hint").textContent="Drop, paste or choose a picture";$("drop").focus()}
  function list(parent,rows){var all=make("dl",parent);rows.forEach(function(row){make("dt",all,row[0]);make("dd",all,row[1])});return all}
  function draw(parent,kept,source){
    kept.images.forEach(function(seen){
      var holder=make("div",parent);holder.className="layers";
      seen.layers.forEach(function(cells,layer){
        var figure=make("figure",holder),canvas=make("canvas",figure),share=Math.round(keptShare(cells)*100);
        var text="Layer "+layer+": "+share+" % of the patches kept";
        canvas.width=seen.columns*8;canvas.height=seen.rows*8;canvas.setAttribute("role","img");canvas.setAttribute("aria-label",text);
        make("figcaption",figure,text);
        var pen=canvas.getContext("2d"),area=seen.area,x=source.naturalWidth/seen.width,y=source.naturalHeight/seen.height;
        pen.drawImage(source,area.x*x,area.y*y,area.width*x,area.height*y,0,0,canvas.width,canvas.height);
        cells.forEach(function(share,cell){
          pen.fillStyle="rgba(0,0,0,"+0.8*(1-share)+")";
          pen.fillRect(cell%seen.columns*8,Math.floor(cell/seen.columns)*8,8,8)});
      });
    });
  }
  function answer(title,body,signal){
    var article=make("article",$("answers")),text,tokens=0,first=0;
    article.setAttribute("aria-label",title);make("h2",article,title);
    text=make("p",article);text.className="text";text.setAttribute("aria-live","polite");
    body.stream=true;body.stream_options={include_usage:true};
    return ask("v1/chat/completions",body,signal).then(function(response){
      var reader=response.body.getReader(),decoder=new TextDecoder(),buffer="";
      function next(){return reader.read().then(function(part){
        if(part.done)return;
        var taken=takeEvents(buffer+decoder.decode(part.value,{stream:true}));buffer=taken.rest;
        taken.events.forEach(function(event){
          if(event.error)throw new Error(event.error.message);
          var choice=event.choices[0],delta=choice&&choice.delta.content;
          if(delta){if(!first)first=performance.now();text.appendChild(document.createTextNode(delta))}
          if(event.usage)tokens=event.usage.completion_tokens;
          if(event.prefixkv){
            var cache=event.prefixkv,meter=make("meter",article);
            meter.max=Math.max(1,cache.full_bytes);meter.value=cache.resident_bytes;
            meter.setAttribute("aria-label","memory of the cache, "+bytes(cache.resident_bytes)+" of "+bytes(cache.full_bytes));
            list(article,facts(cache,tokens,first?(performance.now()-first)/1000:0));
          }
        });
        return next()})}
      return next();
    }).then(function(){
      if(!picture)return;
      var source=$("preview"),button=make("button",article,"Show the kept patches");
      button.type="button";
      button.addEventListener("click",function(){
        button.disabled=true;say("Reading the picture again.");
        var again=Object.assign({},body);delete again.stream;delete again.stream_options;
        ask("v1/kept",again).then(function(response){return response.json()}).then(function(kept){
          draw(article,kept,source);say("The kept patches are drawn, layer by layer.")},
          function(error){button.disabled=false;say(error.message,true)})});
    }).catch(function(error){if(error.name==="AbortError"){make("p",article,"Stopped.");return}make("p",article,error.message).className="bad"});
  }
  function run(){
    var question=$("question").value.trim();
    if(!question||control)return;
    control=new AbortController();$("ask").disabled=true;$("stop").disabled=false;$("answers").textContent="";say("Asking.");
    var methods=[$("beside"),$("method")].filter(function(choice,at){return at===1||(choice.value!=="-"&&choice.value!==$("method").value)});
    var keep=Number($("keep").value)/100,tokens=Math.max(1,Number($("tokens").value)||200);
    (model?Promise.resolve():meet()).then(function(){
      return Promise.all(methods.map(function(choice){
        var name=choice.selectedOptions[0].textContent,title=choice.value?name+", keep "+Math.round(keep*100)+" %":"Full cache";
        return answer(title,bodyOf(model,picture,question,choice.value,keep,tokens),control.signal)}));
    }).then(function(){say("Answered.")},function(error){say(error.message,true)}).then(function(){
      control=null;$("ask").disabled=false;$("stop").disabled=true});
  }
  $("form").addEventListener("submit",function(event){event.preventDefault();run()});
  $("stop").addEventListener("click",function(){if(control)control.abort()});
  $("forget").addEventListener("click",forget);
  $("file").addEventListener("change",function(){if(this.files[0])show(this.files[0])});
  $("keep").addEventListener("input",function(){$("share").textContent=this.value+" %"});
  document.addEventListener("keydown",function(event){
    if(event.key==="Enter"&&(event.ctrlKey||event.metaKey)){event.preventDefault();run()}
    if(event.key==="Escape"&&control)control.abort()});
  document.addEventListener("paste",function(event){
    var file=Array.from(event.clipboardData.files).find(function(file){return /^image\//.test(file.type)});
    if(file){event.preventDefault();show(file)}});
  ["dragover","dragleave","drop"].forEach(function(kind){$("drop").addEventListener(kind,function(event){
    event.preventDefault();this.classList.toggle("over",kind==="dragover");
    if(kind==="drop"&&event.dataTransfer.files[0])show(event.dataTransfer.files[0])})});
  meet().catch(function(error){say(error.message,true)});
}
if(typeof document!=="undefined")start();`;
